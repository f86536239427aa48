/* The tables of this room as Markdown, for docs/advise.md and docs/isolation-levels.md; tests compare. Pure. */
#ifndef BULKHEAD_LADDER_REFERENCE_H
#define BULKHEAD_LADDER_REFERENCE_H

#include "base/buf.h"

/* docs/advise.md as a whole. */
void ladder_reference_advice(struct buf *ret_text);
/* What each level contains where the host can do everything, and what changes without a part. */
void ladder_reference_walls(struct buf *ret_text);

#endif
