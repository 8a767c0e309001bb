// Reads a list of Kubernetes resources of other projects' kinds, and tells what those kinds' schemas
// do not allow, or do not know: node resources.mjs <LIST
import { readFileSync } from 'node:fs'

const packages = {
  'cert-manager.io': 'cert-manager',
  'gateway.networking.k8s.io': 'gateway-api',
  'monitoring.coreos.com': 'prometheus-operator',
}

for (const resource of JSON.parse(readFileSync(0, 'utf8'))) {
  const [group, version] = resource.apiVersion.split('/')
  const { [resource.kind]: Kind } = await import(
    `@kubernetes-models/${packages[group]}/${group}/${version}`
  )
  const unread = new Set()
  // Not by `new`, which would copy it, and so read it.
  Kind.prototype.validate.call(watched(resource, resource.kind, unread))
  if (unread.size > 0) throw new Error(`in no schema: ${[...unread].join(', ')}`)
  console.log(resource.kind)
}

// The schemas let pass what they do not know. But they look at everything that they do know: fields
// that nobody has read in the end are in none.
function watched(value, path, unread) {
  if (value === null || typeof value !== 'object') return value
  const children = Array.isArray(value) ? [] : {}
  for (const key of Object.keys(value)) {
    children[key] = watched(value[key], `${path}.${key}`, unread)
    unread.add(`${path}.${key}`)
  }
  return new Proxy(children, {
    get(target, key, receiver) {
      unread.delete(`${path}.${String(key)}`)
      return Reflect.get(target, key, receiver)
    },
  })
}
