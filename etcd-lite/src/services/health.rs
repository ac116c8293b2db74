//! `grpc.health.v1.Health`: the server as a whole, which serves as long as it answers, and no service by name, as etcd 3.5.

use std::pin::Pin;

use coracle_proto::health::health_check_response::ServingStatus;
use coracle_proto::health::health_server::Health;
use coracle_proto::health::{HealthCheckRequest, HealthCheckResponse};
use futures::stream::{self, Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

pub(crate) struct HealthService {
    shutdown: CancellationToken,
}

impl HealthService {
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        Self { shutdown }
    }

    fn status(&self, service: &str) -> ServingStatus {
        match service {
            "" if self.shutdown.is_cancelled() => ServingStatus::NotServing,
            "" => ServingStatus::Serving,
            _ => ServingStatus::ServiceUnknown,
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.status(&request.into_inner().service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found("unknown service")),
            status => Ok(Response::new(response(status))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let now = stream::iter([Ok(response(self.status(&service)))]);
        let shutdown = self.shutdown.clone();
        let at_the_end = stream::once(async move {
            shutdown.cancelled().await;
            if service.is_empty() {
                Ok(response(ServingStatus::NotServing))
            } else {
                Err(Status::unavailable("etcdserver: server stopped"))
            }
        });
        Ok(Response::new(Box::pin(now.chain(at_the_end))))
    }
}
