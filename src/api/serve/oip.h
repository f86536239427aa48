/* Surface: Open Inference Protocol v2 over REST (kserve/open-inference-protocol), with the binary tensor data
 * extension. */
#ifndef BULKHEAD_API_OIP_H
#define BULKHEAD_API_OIP_H

#include "gateway/gateway.h"

extern const struct gateway_surface serve_oip_surface;

#endif
