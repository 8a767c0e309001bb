// Reads a list of Kubernetes resources of custom kinds, and reports what their schemas do not allow or
// do not contain: node resources.mjs <LIST
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
  // `new` would copy the resource, and read all fields.
  Kind.prototype.validate.call(watched(resource, resource.kind, unread))
  if (unread.size > 0) throw new Error(`in no schema: ${[...unread].join(', ')}`)
  console.log(resource.kind)
}

// The schemas accept unknown fields, but read all known ones: fields that were not read are unknown.
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
