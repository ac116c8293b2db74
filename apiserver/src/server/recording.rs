//! The end of a request's audit record: what it was answered with, and when the answer is over. Changes nothing of the answer.

use coracle_api::status::ApiError;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::BodyExt;

use super::body::{self, Response};
use crate::audit::Trail;
use crate::audit::policy::Stage;

/// Notes the answer. A long one is over when its last part has been sent; all others are when they are made. Answers of other servers (`foreign`) are
/// not looked into.
pub async fn complete(trail: &Trail, response: Response, long_running: bool, foreign: bool) -> Response {
    if !trail.is_kept() {
        return response;
    }
    let code = response.status().as_u16();
    // Nobody is known to have sent it: recorded once, as the answer begins.
    if code == 401 {
        trail.answered(code);
        trail.reach(Stage::ResponseStarted).await;
        return response;
    }
    if long_running && code < 400 {
        trail.answered(code);
        trail.reach(Stage::ResponseStarted).await;
        let end = trail.end();
        return response.map(|body| {
            let watched = body.map_frame(move |frame| {
                // The end lives in the body.
                let _ = &end;
                frame
            });
            watched.boxed_unsync()
        });
    }
    let response =
        if trail.wants_answer(code) && !foreign { looked_into(trail, response).await } else { response };
    trail.answered(code);
    trail.reach(Stage::ResponseComplete).await;
    response
}

async fn looked_into(trail: &Trail, response: Response) -> Response {
    if response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(content_type) = content_type.map(str::to_owned) else { return response };
    let (mut parts, body) = response.into_parts();
    match body.collect().await {
        Ok(collected) => {
            let bytes = collected.to_bytes();
            trail.response(&content_type, &bytes);
            Response::from_parts(parts, body::full(bytes))
        }
        Err(error) => {
            tracing::error!(error, "an answer broke off while it was recorded");
            parts.status = http::StatusCode::INTERNAL_SERVER_ERROR;
            Response::from_parts(parts, body::empty())
        }
    }
}

/// Notes that the request's handler failed.
pub async fn panicked(trail: &Trail, error: &ApiError) {
    trail.failed(&error.to_status());
    trail.reach(Stage::Panic).await;
}
