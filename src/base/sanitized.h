/* Whether this build carries AddressSanitizer (1) or not (0). gcc 12 and clang say it in different ways. */
#ifndef BULKHEAD_BASE_SANITIZED_H
#define BULKHEAD_BASE_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#endif
