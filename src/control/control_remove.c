/* Removed files are freed in slices: one slice per turn of the loop, and between them whoever asks control anything is
 * answered. */
#include "control/control_internal.h"

static void on_idle(uv_idle_t *idle)
{
    struct control *c = idle->data;
    if (c->registry && registry_removing(c->registry))
        registry_remove_step(c->registry);
    else
        (void)uv_idle_stop(idle);
}

void control_removals_init(struct control *c)
{
    (void)uv_idle_init(&c->loop, &c->remove_idle); /* always succeeds */
    c->remove_idle.data = c;
}

void control_removals_look(struct control *c)
{
    if (c->registry && registry_removing(c->registry) && !uv_is_active((uv_handle_t *)&c->remove_idle))
        (void)uv_idle_start(&c->remove_idle, on_idle); /* fails only on a closing handle */
}
