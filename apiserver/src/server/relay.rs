//! One HTTP exchange passed on to another server: which headers go along, how upgraded connections are joined, and how the answer comes back.
//!
//! Never here: who the other server is, and what is said to it about the user.

use bytes::Bytes;
use http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response as HttpResponse, StatusCode, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::body::{self, BoxError, Response};

/// The client's wish to speak another protocol on its connection.
pub struct Upgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
    /// The wish of a request, if it has one.
    pub fn of(request: &mut Request<Incoming>) -> Option<Self> {
        let protocol = request.headers().get(UPGRADE).cloned()?;
        Some(Self { protocol, client: hyper::upgrade::on(request) })
    }

    /// Joins the two connections if the server has agreed, and says so to the client.
    pub fn joined(self, answer: &mut HttpResponse<Incoming>, stop: CancellationToken) -> Option<Response> {
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return None;
        }
        tokio::spawn(copy(self.client, hyper::upgrade::on(&mut *answer), stop));
        Some(switching_protocols(answer.headers().clone()))
    }
}

/// Leaves the headers that are for the next server too; the client's wish for another protocol is one of them.
pub fn pass_on(headers: &mut HeaderMap, upgrade: Option<&Upgrade>) {
    drop_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade.protocol.clone());
    }
}

/// Head and body of an answer as the client may see them.
pub fn take_back(answer: HttpResponse<Incoming>) -> (Parts, Incoming) {
    let (mut head, incoming) = answer.into_parts();
    drop_hop_by_hop(&mut head.headers);
    // The client's connection may speak another version.
    head.version = Version::default();
    (head, incoming)
}

/// The answer after which both sides speak another protocol.
pub fn switching_protocols(headers: HeaderMap) -> Response {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}

/// Takes away the headers that are about one connection only.
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [CONNECTION, UPGRADE, TE, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "trailer"] {
        headers.remove(name);
    }
}

/// Speaks HTTP/1 on a connection, which lives as long as what is answered on it.
///
/// # Errors
/// The connection broke.
pub async fn speak<B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<B>, hyper::Error>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to another server ended with an error");
        }
    });
    Ok(sender)
}

/// Copies both ways until one side ends or `stop` fires.
pub async fn copy(client: OnUpgrade, server: OnUpgrade, stop: CancellationToken) {
    let both = async {
        let (client, server) = tokio::try_join!(client, server).map_err(std::io::Error::other)?;
        tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await
    };
    tokio::select! {
        () = stop.cancelled() => {}
        result = both => match result {
            Ok((sent, received)) => tracing::debug!(sent, received, "an upgraded connection ended"),
            Err(error) => tracing::debug!(%error, "an upgraded connection broke off"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_stay_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "keep-alive, x-mine"), ("x-mine", "1"), ("te", "trailers"), ("accept", "a")]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        pass_on(&mut headers, None);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
