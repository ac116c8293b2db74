//! One extender, reached over HTTP with upstream's JSON. Owns the form of questions and answers and the connection; what follows from the
//! answers is `scheduler-core`'s.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use kube::client::Body;
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use scheduler_core::extender::{Extender, Going, Passed};
use scheduler_core::node_info::NodeInfo;
use scheduler_core::pod_info::PodInfo;
use scheduler_core::preemption::victims::Victims;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::configuration::extenders::{ExtenderFile, TlsFile};

const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer may name every node of a large cluster with all that is known of it.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A server outside that is asked about pods.
pub struct HttpExtender {
    file: ExtenderFile,
    client: Client,
    timeout: Duration,
}

/// What is asked about nodes.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NodesQuestion<'a> {
    pod: &'a Pod,
    nodes: Option<NodeList<'a>>,
    node_names: Option<Vec<&'a str>>,
}

#[derive(Serialize)]
struct NodeList<'a> {
    metadata: Map<String, Value>,
    items: Vec<&'a Node>,
}

/// What is asked about pods that would have to go.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PreemptionQuestion<'a> {
    pod: &'a Pod,
    node_name_to_victims: Option<BTreeMap<&'a str, VictimsOf<&'a Pod>>>,
    node_name_to_meta_victims: Option<BTreeMap<&'a str, VictimsOf<Named<'a>>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct VictimsOf<P> {
    pods: Vec<P>,
    #[serde(rename = "NumPDBViolations")]
    violations: usize,
}

#[derive(Serialize)]
struct Named<'a> {
    #[serde(rename = "UID")]
    uid: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct BindingQuestion<'a> {
    pod_name: &'a str,
    pod_namespace: &'a str,
    #[serde(rename = "PodUID")]
    pod_uid: &'a str,
    node: &'a str,
}

impl HttpExtender {
    /// Prepares the connection; the server need not be there yet.
    ///
    /// # Errors
    /// What the file says of certificates is not so.
    pub fn new(file: ExtenderFile) -> anyhow::Result<Self> {
        let mut config = Config::new(file.url_prefix.parse().context("urlPrefix")?);
        let timeout = match file.http_timeout.get() {
            Duration::ZERO => TIMEOUT,
            given => given,
        };
        config.connect_timeout = Some(timeout);
        config.default_retry = false;
        let none = TlsFile::default();
        let tls = file.tls_config.as_ref().unwrap_or(&none);
        let authority = pem(tls.ca_data.as_ref(), tls.ca_file.as_ref())?;
        config.accept_invalid_certs = tls.insecure || (file.enable_https && authority.is_none());
        if let Some(pem) = authority {
            let certificates = CertificateDer::pem_slice_iter(&pem)
                .collect::<Result<Vec<_>, _>>()
                .context("tlsConfig: caFile")?;
            config.root_cert = Some(certificates.iter().map(|certificate| certificate.to_vec()).collect());
        }
        config.tls_server_name.clone_from(&tls.server_name);
        let encode = |pem: Vec<u8>| base64::engine::general_purpose::STANDARD.encode(pem);
        config.auth_info.client_certificate_data =
            pem(tls.cert_data.as_ref(), tls.cert_file.as_ref())?.map(encode);
        config.auth_info.client_key_data =
            pem(tls.key_data.as_ref(), tls.key_file.as_ref())?.map(|pem| encode(pem).into());
        let client = Client::try_from(config).with_context(|| format!("extender {}", file.url_prefix))?;
        Ok(Self { file, client, timeout })
    }

    /// Whether it binds the pods that it is asked about.
    pub fn binds(&self) -> bool {
        !self.file.bind_verb.is_empty()
    }

    /// Has it bind a pod.
    ///
    /// # Errors
    /// It did not answer, or said so.
    pub async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), String> {
        let question =
            BindingQuestion { pod_name: pod.name(), pod_namespace: pod.namespace(), pod_uid: &pod.uid, node };
        error_of(&self.ask(&self.file.bind_verb, &question).await?)
    }

    async fn ask(&self, verb: &str, question: &impl Serialize) -> Result<Value, String> {
        let url = format!("{}/{verb}", self.file.url_prefix.trim_end_matches('/'));
        let asked = async {
            let body = serde_json::to_vec(question).map_err(|error| error.to_string())?;
            let request = http::Request::post(format!("/{verb}"))
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(Body::from(body))
                .map_err(|error| error.to_string())?;
            let answer = self.client.send(request).await.map_err(|error| error.to_string())?;
            if answer.status() != http::StatusCode::OK {
                let code = answer.status().as_u16();
                return Err(format!("failed {verb} with extender at URL {url}, code {code}"));
            }
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| format!("Post {url:?}: {error}"))?.to_bytes();
            serde_json::from_slice(&body)
                .map_err(|error| format!("the answer of {url:?} is not understood: {error}"))
        };
        tokio::time::timeout(self.timeout, asked)
            .await
            .unwrap_or_else(|_| Err(format!("Post {url:?}: no answer within {:?}", self.timeout)))
    }

    /// The same for a decision, which waits.
    fn ask_now(&self, verb: &str, question: &impl Serialize) -> Result<Value, String> {
        let answer = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(self.ask(verb, question))
        });
        if let Err(error) = &answer {
            tracing::warn!(
                extender = self.file.url_prefix,
                verb,
                error,
                ignored = self.file.ignorable,
                "extender failed"
            );
        }
        answer
    }

    fn nodes_question<'a>(&self, pod: &'a PodInfo, nodes: &[&'a NodeInfo]) -> NodesQuestion<'a> {
        let known = self.file.node_cache_capable;
        NodesQuestion {
            pod: &pod.pod,
            nodes: (!known).then(|| NodeList {
                metadata: Map::new(),
                items: nodes.iter().filter_map(|node| node.node.as_deref()).collect(),
            }),
            node_names: known.then(|| nodes.iter().map(|node| &*node.name).collect()),
        }
    }
}

impl Extender for HttpExtender {
    fn name(&self) -> &str {
        &self.file.url_prefix
    }

    fn is_ignorable(&self) -> bool {
        self.file.ignorable
    }

    fn is_interested(&self, pod: &PodInfo) -> bool {
        let managed = &self.file.managed_resources;
        let names = |container: &Container| {
            let Some(resources) = &container.resources else { return false };
            let (requests, limits) = (resources.requests.iter().flatten(), resources.limits.iter().flatten());
            requests.chain(limits).any(|(name, _)| managed.iter().any(|resource| resource.name == *name))
        };
        managed.is_empty()
            || pod.pod.spec.as_ref().is_some_and(|spec| {
                spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(names)
            })
    }

    fn filter(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> Result<Passed, String> {
        if self.file.filter_verb.is_empty() {
            let nodes = nodes.iter().map(|node| node.name.to_string()).collect();
            return Ok(Passed { nodes, ..Passed::default() });
        }
        let answer = self.ask_now(&self.file.filter_verb, &self.nodes_question(pod, nodes))?;
        error_of(&answer)?;
        let named =
            field(&answer, "NodeNames").and_then(Value::as_array).filter(|_| self.file.node_cache_capable);
        let passed: Vec<&str> = match named {
            Some(names) => names.iter().filter_map(Value::as_str).collect(),
            None => {
                let items = field(&answer, "Nodes").and_then(|list| list["items"].as_array());
                items.into_iter().flatten().filter_map(|node| node["metadata"]["name"].as_str()).collect()
            }
        };
        if let Some(stranger) = passed.iter().find(|name| !nodes.iter().any(|node| *node.name == ***name)) {
            return Err(format!(
                "extender {:?} claims a filtered node {stranger:?} which is not found in the input node list",
                self.file.url_prefix
            ));
        }
        Ok(Passed {
            nodes: passed.into_iter().map(str::to_owned).collect(),
            failed: reasons(&answer, "FailedNodes"),
            unresolvable: reasons(&answer, "FailedAndUnresolvableNodes"),
        })
    }

    fn prioritize(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> Result<Vec<(String, i64)>, String> {
        if self.file.prioritize_verb.is_empty() {
            return Ok(Vec::new());
        }
        let answer = self.ask_now(&self.file.prioritize_verb, &self.nodes_question(pod, nodes))?;
        let scored = answer.as_array().into_iter().flatten().filter_map(|scored| {
            let score = field(scored, "Score").and_then(Value::as_i64).unwrap_or_default();
            Some((field(scored, "Host")?.as_str()?.to_owned(), score.saturating_mul(self.file.weight)))
        });
        Ok(scored.collect())
    }

    fn judges_preemption(&self) -> bool {
        !self.file.preempt_verb.is_empty()
    }

    fn preempt(&self, pod: &PodInfo, candidates: &[Victims<'_>]) -> Result<BTreeMap<String, Going>, String> {
        let known = self.file.node_cache_capable;
        let whole = candidates.iter().map(|one| {
            let pods = one.pods.iter().map(|pod| &*pod.pod).collect();
            (&*one.node.name, VictimsOf { pods, violations: one.violations })
        });
        let named = candidates.iter().map(|one| {
            let pods = one.pods.iter().map(|pod| Named { uid: &pod.uid }).collect();
            (&*one.node.name, VictimsOf { pods, violations: one.violations })
        });
        let question = PreemptionQuestion {
            pod: &pod.pod,
            node_name_to_victims: (!known).then(|| whole.collect()),
            node_name_to_meta_victims: known.then(|| named.collect()),
        };
        let answer = self.ask_now(&self.file.preempt_verb, &question)?;
        let nodes = field(&answer, "NodeNameToMetaVictims").and_then(Value::as_object);
        let going = nodes.into_iter().flatten().map(|(node, victims)| {
            let pods = field(victims, "Pods").and_then(Value::as_array).into_iter().flatten();
            let uids = pods.filter_map(|pod| field(pod, "UID")?.as_str().map(str::to_owned)).collect();
            let violations = field(victims, "NumPDBViolations").and_then(Value::as_u64).unwrap_or_default();
            (node.clone(), Going { uids, violations: violations as usize })
        });
        Ok(going.collect())
    }
}

/// What a certificate or key says, given whole or as a file.
fn pem(
    data: Option<&k8s_openapi::ByteString>,
    file: Option<&std::path::PathBuf>,
) -> anyhow::Result<Option<Vec<u8>>> {
    match (data, file) {
        (Some(data), _) => Ok(Some(data.0.clone())),
        (None, Some(file)) => {
            let read =
                std::fs::read(file).with_context(|| format!("tlsConfig: cannot read {}", file.display()));
            read.map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// A field by its name; extenders written in Go need not mind upper and lower case.
fn field<'a>(answer: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = answer.as_object()?;
    let found = fields
        .get(name)
        .or_else(|| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value));
    found.filter(|value| !value.is_null())
}

/// The error that an answer tells of.
fn error_of(answer: &Value) -> Result<(), String> {
    match field(answer, "Error").and_then(Value::as_str).unwrap_or_default() {
        "" => Ok(()),
        error => Err(error.to_owned()),
    }
}

fn reasons(answer: &Value, name: &str) -> BTreeMap<String, String> {
    let reasons = field(answer, name).and_then(Value::as_object).into_iter().flatten();
    reasons.map(|(node, reason)| (node.clone(), reason.as_str().unwrap_or_default().to_owned())).collect()
}
