//! One call of the gRPC health checking protocol.
//!
//! Never here: thresholds.

use std::time::Duration;

use component_base::host_port::join_host_port;
use tonic::transport::Endpoint;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

/// Asks `grpc.health.v1.Health/Check`.
///
/// # Errors
/// In the words of upstream's probe.
pub async fn check(host: &str, port: i32, service: Option<&str>, timeout: Duration) -> Result<(), String> {
    let address = join_host_port(host, port);
    let service = service.unwrap_or_default().to_owned();
    let call = async {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| error.to_string())?
            .connect()
            .await
            .map_err(|error| format!("error: failed to connect service at \"{address}\": {error}"))?;
        let mut client = tonic::client::Grpc::new(channel);
        client
            .ready()
            .await
            .map_err(|error| format!("error: failed to connect service at \"{address}\": {error}"))?;
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let request = tonic::Request::new(HealthCheckRequest { service: service.clone() });
        let reply = client.unary(request, path, codec).await.map_err(|status| failure(&status, timeout))?;
        match reply.into_inner().status {
            SERVING => Ok(()),
            other => Err(format!("service unhealthy (responded with \"{}\")", name(other))),
        }
    };
    match tokio::time::timeout(timeout, call).await {
        Ok(result) => result,
        Err(_) => {
            let seconds = timeout.as_secs();
            Err(format!(
                "timeout: failed to connect service \"{address}\" within {seconds}s: context deadline exceeded"
            ))
        }
    }
}

/// What a call says that was not answered.
fn failure(status: &tonic::Status, timeout: Duration) -> String {
    match status.code() {
        tonic::Code::Unimplemented => format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        ),
        tonic::Code::DeadlineExceeded => {
            format!("timeout: health rpc did not complete within {}s", timeout.as_secs())
        }
        code => format!("error: health rpc failed: rpc error: code = {code:?} desc = {}", status.message()),
    }
}

fn name(status: i32) -> &'static str {
    match status {
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}
