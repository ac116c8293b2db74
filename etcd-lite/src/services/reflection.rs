//! gRPC server reflection, v1 and v1alpha, over the services of the client port.

use std::convert::Infallible;
use std::sync::LazyLock;

use parking_lot::Mutex;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic_reflection::server::Builder;
use tower::util::BoxCloneService;

type Reflection = BoxCloneService<http::Request<Body>, http::Response<Body>, Infallible>;

const SERVICES: [&str; 9] = [
    "etcdserverpb.Auth",
    "etcdserverpb.Cluster",
    "etcdserverpb.KV",
    "etcdserverpb.Lease",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Watch",
    "grpc.health.v1.Health",
    "v3electionpb.Election",
    "v3lockpb.Lock",
];

fn builder() -> Builder<'static> {
    let builder = Builder::configure().register_encoded_file_descriptor_set(coracle_proto::DESCRIPTORS);
    SERVICES.iter().fold(builder, |builder, service| builder.with_service_name(*service))
}

/// Both versions, made when first asked for. `None` would be a fault of this build; a test sees to that.
static V1: LazyLock<Option<Mutex<Reflection>>> = LazyLock::new(|| {
    let builder = builder().with_service_name("grpc.reflection.v1.ServerReflection");
    builder.build_v1().ok().map(|service| Mutex::new(BoxCloneService::new(service)))
});
static V1ALPHA: LazyLock<Option<Mutex<Reflection>>> = LazyLock::new(|| {
    let builder = builder().with_service_name("grpc.reflection.v1alpha.ServerReflection");
    builder.build_v1alpha().ok().map(|service| Mutex::new(BoxCloneService::new(service)))
});

/// Answers a request to `grpc.reflection.…`.
pub(super) async fn answer(service: &str, request: http::Request<Body>) -> http::Response<Body> {
    let reflection = match service {
        "grpc.reflection.v1.ServerReflection" => V1.as_ref(),
        "grpc.reflection.v1alpha.ServerReflection" => V1ALPHA.as_ref(),
        _ => None,
    };
    let Some(mut reflection) = reflection.map(|reflection| reflection.lock().clone()) else {
        return tonic::Status::unimplemented(format!("unknown service {service}")).into_http();
    };
    match reflection.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
