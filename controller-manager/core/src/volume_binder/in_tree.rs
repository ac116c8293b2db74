//! Volume plugins that were part of Kubernetes once: which storage drivers do their work now, and the marks by which these drivers know.
//! The names and the rules are upstream's (`csi-translation-lib`, `pv_controller_base.go`).

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{PROVISIONED_BY, PROVISIONER, PROVISIONER_BETA, reclaim_policy};
use crate::object_meta::{annotation, list_or_null};

/// What all names of such plugins begin with.
pub(crate) const PREFIX: &str = "kubernetes.io/";
/// The driver that took over from the plugin.
pub(crate) const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// Keeps a volume whose plugin has not deleted what is behind it.
const IN_TREE_FINALIZER: &str = "kubernetes.io/pv-controller";
/// The same, of external provisioners.
const EXTERNAL_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

const DRIVERS: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
    ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
];

/// The driver that does a plugin's work; none for what is no such plugin.
pub(crate) fn driver(plugin: &str) -> Option<&'static str> {
    DRIVERS.iter().find(|(name, _)| *name == plugin).map(|(_, driver)| *driver)
}

/// The plugin that a volume's source is of, if a driver does its work now.
pub(crate) fn plugin_of(volume: &PersistentVolume) -> Option<&'static str> {
    let spec = volume.spec.as_ref()?;
    let sources = [
        spec.aws_elastic_block_store.is_some(),
        spec.azure_disk.is_some(),
        spec.azure_file.is_some(),
        spec.cinder.is_some(),
        spec.gce_persistent_disk.is_some(),
        spec.portworx_volume.is_some(),
        spec.vsphere_volume.is_some(),
    ];
    sources.iter().zip(DRIVERS).find(|(is_set, _)| **is_set).map(|(_, (plugin, _))| plugin)
}

/// Upstream's text for a plugin that is not there.
pub(super) fn no_plugin(name: &str) -> String {
    format!("no volume plugin matched name: {name}")
}

/// What the mark of migration should be, if it is not that.
fn mark(meta: &ObjectMeta, provisioner: &str) -> Option<Value> {
    let found = annotation(meta, MIGRATED_TO).filter(|found| !found.is_empty());
    let wanted = driver(provisioner);
    (found != wanted).then(|| json!(wanted))
}

/// The annotations of a claim to write; none if they are right.
pub(super) fn claim_moves(claim: &ObjectMeta) -> Option<Value> {
    let provisioner = annotation(claim, PROVISIONER).or_else(|| annotation(claim, PROVISIONER_BETA))?;
    Some(json!({ MIGRATED_TO: mark(claim, provisioner)? }))
}

/// The metadata of a volume to write: the mark of migration and who has to let go of it first; none if they are right.
pub(super) fn volume_moves(volume: &PersistentVolume) -> Option<Value> {
    let provisioner = annotation(&volume.metadata, PROVISIONED_BY)?;
    let mut change = json!({});
    if let Some(mark) = mark(&volume.metadata, provisioner) {
        change["annotations"][MIGRATED_TO] = mark;
    }
    let found = volume.metadata.finalizers.clone().unwrap_or_default();
    let mut wanted = found.clone();
    if driver(provisioner).is_some() {
        wanted.retain(|finalizer| finalizer != IN_TREE_FINALIZER);
    } else if provisioner.starts_with(PREFIX) {
        wanted.retain(|finalizer| finalizer != EXTERNAL_FINALIZER);
        let keeps = reclaim_policy(volume) == "Delete";
        if !keeps {
            wanted.retain(|finalizer| finalizer != IN_TREE_FINALIZER);
        } else if volume.metadata.deletion_timestamp.is_none()
            && !wanted.iter().any(|finalizer| finalizer == IN_TREE_FINALIZER)
        {
            wanted.push(IN_TREE_FINALIZER.to_owned());
        }
    }
    if wanted != found {
        change["finalizers"] = list_or_null(&wanted);
    }
    (change != json!({})).then_some(change)
}
