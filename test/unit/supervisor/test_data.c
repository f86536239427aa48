/* Which file systems the data folder may lie on. */
#include "supervisor/supervisor_internal.h"

#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_network_is_refused(void **state)
{
    (void)state;
    /* Written out: a wrong constant would pass by its own name. Of statfs(2). */
    static const struct {
        uint64_t f_type;
        const char *name;
    } rows[] = {
        {0x6969, "NFS"},      {0x517B, "SMB"},     {0xFE534D42, "SMB"},  {0xFF534D42, "CIFS"},
        {0x564C, "NCP"},      {0x5346414F, "AFS"}, {0x6B414653, "AFS"},  {0x73757245, "Coda"},
        {0x00C36400, "Ceph"}, {0x01021997, "9P"},  {0x65735546, "FUSE"}, {0x0BD00BD0, "Lustre"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *name = supervisor_data_unfit(rows[i].f_type);
        assert_non_null(name);
        assert_string_equal(name, rows[i].name);
    }
}

static void test_local_is_fit(void **state)
{
    (void)state;
    static const uint64_t fit[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC,   BTRFS_SUPER_MAGIC,     TMPFS_MAGIC,
                                   F2FS_SUPER_MAGIC, ISOFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, 0x2FC12FC1 /* ZFS */};
    for (size_t i = 0; i < sizeof fit / sizeof fit[0]; i++)
        assert_null(supervisor_data_unfit(fit[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_network_is_refused),
        cmocka_unit_test(test_local_is_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
