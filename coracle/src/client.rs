//! A Kubernetes client for the launcher itself, from the administrator's kubeconfig.

use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::layout::Layout;

const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
const READ_DEADLINE: Duration = Duration::from_secs(300);

/// Makes a client; connects on first use.
///
/// # Errors
/// The kubeconfig is missing or damaged.
pub async fn connect(layout: &Layout) -> anyhow::Result<kube::Client> {
    component_base::tls::install_provider();
    let path = layout.admin_kubeconfig();
    let kubeconfig =
        Kubeconfig::read_from(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(CONNECT_DEADLINE);
    config.read_timeout = Some(READ_DEADLINE);
    Ok(kube::Client::try_from(config)?)
}
