#include "engine/onnx_error.h"

#define TEXT_BYTES 400 /* leaves room for context in ERROR_TEXT_BYTES_MAX */

/* First components of paths that a server has; a model's own names such as /layer1/Conv are kept. */
static const char *const roots[] = {
    "bin",  "boot", "build", "dev", "etc", "home", "lib", "lib64", "media", "mnt", "onnxruntime_src", "opt", "proc",
    "root", "run",  "src",   "srv", "sys", "tmp",  "usr", "var",   "work",  "__w",
};
static const char *const source_suffixes[] = {".c", ".cc", ".cpp", ".cxx", ".h", ".hpp", ".inc"};

static bool is_break(char c)
{
    return (unsigned char)c <= ' ' || strchr("'\"`(),;[]{}<>=", c) != NULL;
}

/* The token at the front: up to a space, quote, bracket or comma. */
static struct str token_at(struct str s)
{
    size_t size = 0;
    while (size < s.size && !is_break(s.data[size]))
        size++;
    return (struct str){s.data, size};
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_path(struct str token)
{
    if (token.size < 2 || token.data[0] != '/')
        return false;
    struct str first = str_skip(token, 1);
    const char *slash = memchr(first.data, '/', first.size);
    if (slash)
        first.size = (size_t)(slash - first.data);
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++)
        if (str_equal(first, str_from(roots[i])))
            return true;
    return false;
}

/* a/b/model.cc:123, graph_utils.cc:7, math.h:18: */
static bool is_source(struct str token)
{
    const char *colon = memchr(token.data, ':', token.size);
    if (!colon || colon + 1 == token.data + token.size || !is_digit(colon[1]))
        return false;
    struct str file = {token.data, (size_t)(colon - token.data)};
    for (size_t i = 0; i < sizeof source_suffixes / sizeof source_suffixes[0]; i++) {
        struct str suffix = str_from(source_suffixes[i]);
        if (file.size > suffix.size && memcmp(file.data + file.size - suffix.size, suffix.data, suffix.size) == 0)
            return true;
    }
    return false;
}

static bool is_address(struct str token)
{
    if (token.size < 6 || token.data[0] != '0' || (token.data[1] != 'x' && token.data[1] != 'X'))
        return false;
    for (size_t i = 2; i < token.size; i++) {
        char c = token.data[i];
        if (!is_digit(c) && !(c >= 'a' && c <= 'f') && !(c >= 'A' && c <= 'F'))
            return false;
    }
    return true;
}

/* Behind `open … close` at the front of s, nested ones counted; 0 when it does not begin with one that ends. */
static size_t bracketed(struct str s, char open, char close)
{
    size_t depth = 0;
    for (size_t i = 0; i < s.size; i++) {
        if (s.data[i] == open)
            depth++;
        else if (s.data[i] == close)
            depth--;
        if (depth == 0)
            return i == 0 ? 0 : i + 1;
    }
    return 0;
}

/* ORT_ENFORCE puts the C++ signature behind the source location: "void a::b(int) const [with T = int] text". Returns
 * what is left; s itself when there is no such signature. */
static struct str skip_signature(struct str s)
{
    static const struct str qualifiers[] = {{" const", 6}, {" noexcept", 9}};
    const char *paren = memchr(s.data, '(', s.size);
    struct str head = {s.data, paren ? (size_t)(paren - s.data) : 0};
    if (!memmem(head.data, head.size, "::", 2) || memchr(head.data, '\'', head.size) ||
        memmem(head.data, head.size, ". ", 2))
        return s;
    struct str rest = str_skip(s, head.size);
    size_t arguments = bracketed(rest, '(', ')');
    if (arguments == 0)
        return s;
    rest = str_skip(rest, arguments);
    for (size_t i = 0; i < sizeof qualifiers / sizeof qualifiers[0]; i++)
        if (str_starts(rest, qualifiers[i]))
            rest = str_skip(rest, qualifiers[i].size);
    struct str template = str_trim(rest);
    if (str_starts(template, (struct str){"[with ", 6}))
        rest = str_skip(template, bracketed(template, '[', ']'));
    return rest;
}

/* Appends one character; spaces are folded, what is not printable becomes '?'. */
static void put(char *text, size_t capacity, size_t *size, char c)
{
    bool space = c == ' ' || c == '\t' || c == '\n' || c == '\r';
    if (space && (*size == 0 || text[*size - 1] == ' '))
        return;
    if (*size + 1 < capacity)
        text[(*size)++] = space ? ' ' : c < 0x20 || c > 0x7e ? '?' : c;
}

void onnx_text_clean(struct str s, char *text, size_t capacity)
{
    size_t size = 0;
    while (s.size > 0 && size + 1 < capacity) {
        struct str token = token_at(s);
        bool source = token.size > 0 && is_source(token);
        if (source || is_path(token) || is_address(token)) {
            s = str_skip(s, token.size);
            if (source)
                s = skip_signature(s);
            continue;
        }
        size_t taken = token.size > 0 ? token.size : 1;
        for (size_t i = 0; i < taken; i++)
            put(text, capacity, &size, s.data[i]);
        s = str_skip(s, taken);
    }
    while (size > 0 && text[size - 1] == ' ')
        size--;
    if (capacity > 0)
        text[size] = '\0';
}

int onnx_check(const OrtApi *api, OrtStatus *status, int code, const char *what, struct error *err)
{
    if (!status)
        return 0;
    struct str message = str_from(api->GetErrorMessage(status));
    char text[TEXT_BYTES];
    onnx_text_clean(message, text, sizeof text);
    if (memmem(message.data, message.size, "bad_alloc", 9) ||
        memmem(message.data, message.size, "Failed to allocate memory", 25))
        code = ERROR_NO_MEMORY;
    api->ReleaseStatus(status);
    if (code == ERROR_NO_MEMORY)
        return error_set(err, code, "%s: the model needs more memory than it may take", what);
    return error_set(err, code, "%s: %s", what, text[0] ? text : "no reason given");
}
