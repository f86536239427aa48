"""A language model of one tenant, lent to others, who share its batch or not; with an adapter for each of them or without."""

HEAD = """apiVersion: bulkhead.dev/v1alpha1
kind: Tenant
metadata: {name: lab}
---
apiVersion: bulkhead.dev/v1alpha1
kind: Model
metadata: {name: base, tenant: lab}
spec:
  engine: llama
  source: %(source)s
  isolation: {level: shared}
  resources: {cpu: %(cpu)d, memory: %(memory)dMi, repack: %(repack)s}
  replicas: {min: 1, max: 1}
---
apiVersion: bulkhead.dev/v1alpha1
kind: Grant
metadata: {name: lent, tenant: lab}
spec:
  model: base
  tenants: [%(tenants)s]
  sharedBatch: %(shared)s
"""
TENANT = """---
apiVersion: bulkhead.dev/v1alpha1
kind: Tenant
metadata: {name: %s}
spec:
  quota: {requestsPerMinute: 1000000000, queueDepth: 1024}
"""
ADAPTER = """---
apiVersion: bulkhead.dev/v1alpha1
kind: Adapter
metadata: {name: voice, tenant: %s}
spec:
  base: base
  source: %s
"""


def lent(source, cpu, memory, tenants, adapters=(), repack=False, shared=True):
    """YAML; adapters: a file for each of the tenants, who call it `voice`. The Grant comes behind those whom it names."""
    head = HEAD % {"source": source, "cpu": cpu, "memory": memory, "tenants": ", ".join(tenants),
                   "repack": str(repack).lower(), "shared": str(shared).lower()}
    return "".join(TENANT % name for name in tenants).lstrip("-\n") + "---\n" + head + "".join(
        ADAPTER % pair for pair in zip(tenants, adapters))
