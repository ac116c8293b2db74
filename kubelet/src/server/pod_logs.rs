//! `containerLogs`: which file, with which options.
//!
//! Never here: reading it; see [`super::log_stream`].

use std::time::Duration;

use futures::TryStreamExt as _;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kubelet_core::container_log::LogOptions;
use kubelet_core::observed::RunState;
use kubelet_core::pod_view;
use tokio_stream::wrappers::ReceiverStream;

use super::log_stream::{self, LogFile};
use super::routes::{Query, text};
use super::{Body, Shared};
use crate::runtime::observe::observe;

/// Chunks that wait for a slow reader.
const CHUNKS_MAX: usize = 16;

fn options(query: &Query) -> Result<LogOptions, String> {
    let number = |name: &str| -> Result<Option<i64>, String> {
        match query.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| format!("invalid value {text:?} for {name}")),
        }
    };
    let count = |name: &str| -> Result<Option<usize>, String> {
        number(name)?
            .map(|value| usize::try_from(value).map_err(|_| format!("{name} must be 0 or more")))
            .transpose()
    };
    let since = match (number("sinceSeconds")?, query.get("sinceTime")) {
        (Some(seconds), _) => Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).ok(),
        (None, Some(time)) => {
            Some(time.parse().map_err(|_| format!("invalid value {time:?} for sinceTime"))?)
        }
        (None, None) => None,
    };
    Ok(LogOptions {
        follow: query.flag(&["follow"]),
        previous: query.flag(&["previous"]),
        timestamps: query.flag(&["timestamps"]),
        since,
        tail: match query.get("tailLines") {
            // As upstream: -1 is all.
            Some("-1") => None,
            _ => count("tailLines")?,
        },
        limit_bytes: count("limitBytes")?,
        stderr_only: match query.get("stream") {
            None | Some("" | "All") => None,
            Some("Stderr") => Some(true),
            Some("Stdout") => Some(false),
            Some(other) => return Err(format!("invalid value {other:?} for stream")),
        },
    })
}

/// Answers with the log.
pub async fn answer(shared: &Shared, pod: &Pod, container: &str, query: &Query) -> Response<Body> {
    let options = match options(query) {
        Ok(options) => options,
        Err(error) => return text(StatusCode::BAD_REQUEST, error),
    };
    let pod_name = pod_view::name(pod);
    if pod_view::container(pod, container).is_none() {
        let message = format!("container {container} is not valid for pod {pod_name}");
        return text(StatusCode::BAD_REQUEST, message);
    }
    let observed = match observe(shared.context.runtime.as_ref(), pod_view::uid(pod)).await {
        Ok(observed) => observed,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut instances = observed.containers.iter().filter(|seen| seen.name == container);
    let chosen = if options.previous {
        instances.nth(1).filter(|seen| seen.state == RunState::Exited)
    } else {
        instances.next()
    };
    let Some(seen) = chosen else {
        let message = if options.previous {
            format!("previous terminated container \"{container}\" in pod \"{pod_name}\" not found")
        } else {
            let status = pod.status.iter().flat_map(|status| {
                status
                    .container_statuses
                    .iter()
                    .flatten()
                    .chain(status.init_container_statuses.iter().flatten())
            });
            let reason = status
                .filter(|status| status.name == container)
                .find_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
            let reason = reason.unwrap_or_else(|| "ContainerCreating".to_owned());
            format!("container \"{container}\" in pod \"{pod_name}\" is waiting to start: {reason}")
        };
        return text(StatusCode::BAD_REQUEST, message);
    };
    let path = shared.context.log_directory(pod).join(container).join(format!("{}.log", seen.restart_count));
    let file = match LogFile::open(path, options.tail) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return text(StatusCode::OK, "");
        }
        Err(error) => {
            return text(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to open the log: {error}"));
        }
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS_MAX);
    let (runtime, id) = (std::sync::Arc::clone(&shared.context.runtime), seen.id.clone());
    let ended = move || {
        let (runtime, id) = (std::sync::Arc::clone(&runtime), id.clone());
        async move {
            match runtime.container_status(&id).await {
                Ok(Some(status)) => status.state == k8s_cri::v1::ContainerState::ContainerExited as i32,
                Ok(None) => true,
                Err(_) => false,
            }
        }
    };
    tokio::spawn(log_stream::copy(file, options, ended, Duration::from_millis(200), sender));
    let stream = ReceiverStream::new(receiver).map_ok(Frame::data);
    let mut response = Response::new(StreamBody::new(stream).boxed());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_wrong_ones_named() {
        let parse = |text: &str| options(&Query::parse(Some(text)));
        let all = parse("follow=true&tailLines=5&limitBytes=10&timestamps=true&previous=true").unwrap();
        assert!(all.follow && all.timestamps && all.previous);
        assert_eq!((all.tail, all.limit_bytes), (Some(5), Some(10)));
        assert_eq!(parse("tailLines=-1").unwrap().tail, None);
        assert!(parse("tailLines=x").unwrap_err().contains("tailLines"));
        assert!(parse("sinceTime=yesterday").unwrap_err().contains("sinceTime"));
        assert_eq!(parse("stream=Stderr").unwrap().stderr_only, Some(true));
    }
}
