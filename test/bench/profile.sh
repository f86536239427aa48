#!/bin/bash
# Where the gateway's time goes under load: processor time by symbol, then instructions per request by function.
set -euo pipefail
here=$(dirname "$0")
/usr/bin/python3 "$here/profile_role.py" "$@"
/usr/bin/python3 "$here/profile_role.py" --steps "$@"
