#!/bin/sh
# Verifies the committed example files against examples/SHA256SUMS, and that each model's digest is
# there and in its README.
set -eu
cd "$(dirname "$0")/.."

sha256sum --check --strict --quiet SHA256SUMS

for model in */*.onnx */*.gguf; do
	digest=$(sha256sum "$model" | cut -d ' ' -f 1)
	for place in SHA256SUMS "${model%/*}/README.md"; do
		if ! grep -q "$digest" "$place"; then
			echo "$place: lacks the digest of $model" >&2
			exit 1
		fi
	done
done
echo "examples: $(wc -l <SHA256SUMS) digests match"
