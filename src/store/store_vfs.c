#include "store/store_internal.h"

#include "base/random.h"

static int vfs_randomness(sqlite3_vfs *vfs, int size, char *data)
{
    (void)vfs;
    random_bytes(data, (size_t)size);
    return size;
}

int store_vfs_setup(void)
{
    static sqlite3_vfs ours;
    if (ours.zName)
        return 0;
    const sqlite3_vfs *unix_vfs = sqlite3_vfs_find(NULL);
    if (!unix_vfs)
        return -ERROR_INTERNAL;
    ours = *unix_vfs; /* its methods look at pAppData only, which comes along */
    ours.pNext = NULL;
    ours.zName = "bulkhead";
    ours.xRandomness = vfs_randomness;
    return sqlite3_vfs_register(&ours, 1) == SQLITE_OK ? 0 : -ERROR_NO_MEMORY;
}
