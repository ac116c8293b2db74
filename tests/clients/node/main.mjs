// @kubernetes/client-node against the cluster of the kubeconfig named first, from the folder of packages named second: typed calls, every
// kind of patch, watches, an informer that resumes, custom objects, and objects by kind alone. Exits with an error if a step fails.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [kubeconfig, packages] = process.argv.slice(2);
const resolve = createRequire(`${packages}/`).resolve;
const k8s = await import(pathToFileURL(resolve('@kubernetes/client-node')));

const namespace = 'node-client';
const kc = new k8s.KubeConfig();
kc.loadFromFile(kubeconfig);
const core = kc.makeApiClient(k8s.CoreV1Api);
const apps = kc.makeApiClient(k8s.AppsV1Api);
const custom = kc.makeApiClient(k8s.CustomObjectsApi);
const objects = k8s.KubernetesObjectApi.makeApiClient(kc);

const configMap = (name, data = {}) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, namespace, labels: { watched: 'yes' } },
    data,
});
const sending = (type) => k8s.setHeaderOptions('Content-Type', type);

// Watches an object until it is as wanted. The client gives a watch up on which it hears nothing for half a minute, as on a busy machine.
async function watchUntil(path, name, isWanted) {
    const end = Date.now() + 180_000;
    for (;;) {
        let watch;
        try {
            await new Promise((fulfil, reject) => {
                const seen = (type, object) => isWanted(object) && fulfil();
                const query = { fieldSelector: `metadata.name=${name}`, timeoutSeconds: 60 };
                watch = new k8s.Watch(kc).watch(path, query, seen, (error) => reject(error ?? new Error('the watch ended')));
                watch.catch(reject);
            });
            return;
        } catch (error) {
            if (error.name !== 'TimeoutError' || Date.now() > end) throw error;
        } finally {
            (await watch).abort();
        }
    }
}

// The Status that a call is refused with.
async function refusal(call) {
    try {
        await call;
    } catch (error) {
        assert(error instanceof k8s.ApiException, error);
        const status = typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
        assert.equal(status.kind, 'Status');
        assert.equal(status.code, error.code);
        return status;
    }
    assert.fail('not refused');
}

// Fulfilled when the check holds for one of the events to come.
function until(source, events, check) {
    return new Promise((fulfil) => {
        const look = (object) => check(object) && fulfil(object);
        events.forEach((event) => source.on(event, look));
    });
}

async function errorsAndPages() {
    const missing = await refusal(core.readNamespacedConfigMap({ name: 'none', namespace }));
    assert.equal(missing.message, 'configmaps "none" not found');
    for (const name of ['p-1', 'p-2', 'p-3']) {
        await core.createNamespacedConfigMap({ namespace, body: configMap(name) });
    }
    const twice = await refusal(core.createNamespacedConfigMap({ namespace, body: configMap('p-1') }));
    assert.equal(twice.reason, 'AlreadyExists');
    const first = await core.listNamespacedConfigMap({ namespace, limit: 2, labelSelector: 'watched=yes' });
    const token = first.metadata._continue;
    const rest = await core.listNamespacedConfigMap({ namespace, limit: 2, labelSelector: 'watched=yes', _continue: token });
    const names = [...first.items, ...rest.items].map((item) => item.metadata.name);
    assert.deepEqual(names, ['p-1', 'p-2', 'p-3']);
    assert(first.items[0].metadata.creationTimestamp instanceof Date);
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'watched=yes' });
}

async function patches() {
    const labels = { app: 'web' };
    const container = { name: 'web', image: 'demo:v1' };
    const body = {
        metadata: { name: 'web', labels },
        spec: {
            replicas: 0,
            selector: { matchLabels: labels },
            template: { metadata: { labels }, spec: { containers: [container] } },
        },
    };
    await apps.createNamespacedDeployment({ namespace, body });
    const patch = (type, body, more = {}) =>
        apps.patchNamespacedDeployment({ name: 'web', namespace, body, ...more }, sending(type));
    let web = await patch(k8s.PatchStrategy.JsonPatch, [
        { op: 'test', path: '/spec/paused', value: null },
        { op: 'add', path: '/metadata/labels/by', value: 'patch' },
    ]);
    assert.deepEqual(web.metadata.labels, { app: 'web', by: 'patch' });
    web = await patch(k8s.PatchStrategy.StrategicMergePatch, {
        spec: { template: { spec: { containers: [{ name: 'side', image: 'demo:v1' }] } } },
    });
    assert.deepEqual(web.spec.template.spec.containers.map((each) => each.name), ['side', 'web']);
    web = await patch(k8s.PatchStrategy.MergePatch, { spec: { template: { spec: { containers: [container] } } } });
    assert.equal(web.spec.template.spec.containers.length, 1);
    const wanted = { apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name: 'web' }, spec: { replicas: 1 } };
    const conflict = await refusal(patch(k8s.PatchStrategy.ServerSideApply, wanted, { fieldManager: 'me' }));
    assert.match(conflict.message, /^Apply failed with 1 conflict: conflict with ".*" using apps\/v1: .spec.replicas$/);
    web = await patch(k8s.PatchStrategy.ServerSideApply, wanted, { fieldManager: 'me', force: true });
    assert.equal(web.spec.replicas, 1);
    const deployments = `/apis/apps/v1/namespaces/${namespace}/deployments`;
    await watchUntil(deployments, 'web', (object) => object.status?.availableReplicas === 1);
    const scale = await apps.readNamespacedDeploymentScale({ name: 'web', namespace });
    assert.equal(scale.status.selector, 'app=web');
    await apps.deleteNamespacedDeployment({ name: 'web', namespace, propagationPolicy: 'Foreground' });
}

async function informer() {
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'watched=yes' });
    const watched = k8s.makeInformer(kc, path, list, 'watched=yes');
    const seen = [];
    for (const event of ['add', 'update', 'delete']) {
        watched.on(event, (object) => seen.push(`${event} ${object.metadata.name}`));
    }
    let connections = 0;
    watched.on('connect', () => (connections += 1));
    // Stopping shows as an error as well.
    watched.on('error', (error) => assert.equal(error.name, 'AbortError', error));
    await core.createNamespacedConfigMap({ namespace, body: configMap('i-1') });
    await watched.start();
    assert.equal(watched.get('i-1', namespace).metadata.name, 'i-1');
    const second = until(watched, ['add'], (object) => object.metadata.name === 'i-2');
    await core.createNamespacedConfigMap({ namespace, body: configMap('i-2') });
    await second;

    // Stopped and started again it goes on from where it was: nothing lost, nothing told twice.
    await watched.stop();
    await core.patchNamespacedConfigMap({ name: 'i-1', namespace, body: { data: { k: 'v' } } }, sending(k8s.PatchStrategy.MergePatch));
    await core.deleteNamespacedConfigMap({ name: 'i-2', namespace });
    const deleted = until(watched, ['delete'], (object) => object.metadata.name === 'i-2');
    await watched.start();
    await deleted;
    assert.deepEqual(seen, ['add i-1', 'add i-2', 'update i-1', 'delete i-2']);
    assert.equal(watched.get('i-1', namespace).data.k, 'v');
    assert.deepEqual(watched.list(namespace).map((object) => object.metadata.name), ['i-1']);
    assert(connections >= 2, `${connections}`);
    await watched.stop();
}

async function customObjects() {
    const extensions = kc.makeApiClient(k8s.ApiextensionsV1Api);
    const group = 'node.example.com';
    const name = `sails.${group}`;
    // The client's own name for what the schema calls `default`.
    const spec = { type: 'object', properties: { cloth: { type: 'string', _default: 'canvas' }, area: { type: 'integer', minimum: 1 } } };
    await extensions.createCustomResourceDefinition({
        body: {
            metadata: { name },
            spec: {
                group,
                scope: 'Namespaced',
                names: { plural: 'sails', kind: 'Sail' },
                versions: [
                    { name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: { type: 'object', properties: { spec } } } },
                ],
            },
        },
    });
    const isEstablished = (object) =>
        object.status?.conditions?.some((each) => each.type === 'Established' && each.status === 'True');
    await watchUntil('/apis/apiextensions.k8s.io/v1/customresourcedefinitions', name, isEstablished);
    const here = { group, version: 'v1', namespace, plural: 'sails' };
    const sail = { apiVersion: `${group}/v1`, kind: 'Sail', metadata: { name: 'main', namespace }, spec: { area: 3 } };
    const made = await custom.createNamespacedCustomObject({ ...here, body: sail });
    assert.deepEqual(made.spec, { area: 3, cloth: 'canvas' });
    const small = { ...sail, metadata: { name: 'small', namespace }, spec: { area: 0 } };
    const refused = await refusal(custom.createNamespacedCustomObject({ ...here, body: small }));
    assert.match(refused.message, /spec.area in body should be greater than or equal to 1/);
    const patched = await custom.patchNamespacedCustomObject(
        { ...here, name: 'main', body: [{ op: 'replace', path: '/spec/area', value: 4 }] },
        sending(k8s.PatchStrategy.JsonPatch),
    );
    assert.equal(patched.spec.area, 4);
    const listed = await custom.listNamespacedCustomObject(here);
    assert.deepEqual(listed.items.map((item) => item.metadata.name), ['main']);

    // The same by kind alone, found by discovery.
    const applied = await objects.patch(
        { ...sail, spec: { cloth: 'dacron' } },
        undefined,
        undefined,
        'me',
        true,
        k8s.PatchStrategy.ServerSideApply,
    );
    assert.equal(applied.spec.cloth, 'dacron');
    const read = await objects.read({ apiVersion: `${group}/v1`, kind: 'Sail', metadata: { name: 'main', namespace } });
    assert.equal(read.spec.area, 4);
    await objects.delete(sail);
    await extensions.deleteCustomResourceDefinition({ name });
}

await core.createNamespace({ body: { metadata: { name: namespace } } });
await errorsAndPages();
await Promise.all([patches(), informer(), customObjects()]);
await core.deleteNamespace({ name: namespace });
console.log('ok');
process.exit(0);
