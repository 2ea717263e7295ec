use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::routing::{any, get};
use futures_util::stream;

use super::*;
use crate::testing::serve_tls;

async fn client(router: Router) -> AgentClient {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // another test may have done so
    let (url, certificate) = serve_tls(router).await;
    let session = AgentSession {
        token: Some(Secret::new("t")),
        url: Some(url),
        certificate: Some(certificate),
        ..AgentSession::default()
    };
    AgentClient::new(&session).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_of_an_agent_are_not_followed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let target = Router::new().fallback(any(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { "{}" }
    }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("http://{}/secret", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, target).await.unwrap() });
    for status in [301, 302, 303, 307, 308] {
        let place = place.clone();
        let answer = move || async move { (StatusCode::from_u16(status).unwrap(), [(LOCATION, place)]) };
        let agent = client(Router::new().fallback(any(answer))).await;
        let ran = agent.run("deploy.get_deploy_steps", Map::new(), true).await.unwrap_err();
        assert!(ran.to_string().contains("redirects"), "{ran}");
        assert!(agent.list().await.is_err() && agent.events(0, Duration::ZERO).await.is_err());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_called_over_tls_only() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let session = AgentSession { token: Some(Secret::new("t")), url: Some(url), ..AgentSession::default() };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // another test may have done so
    assert!(AgentClient::new(&session).unwrap().list().await.is_err());
    let accepted = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(accepted.is_err(), "it connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_an_agent_are_bounded() {
    let piece = Bytes::from(vec![b' '; 1 << 20]);
    let endless = move || async move {
        Body::from_stream(stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone())))
    };
    let nested = || async { format!("{}{}", "[".repeat(100), "]".repeat(100)) };
    let long = || async {
        let text = serde_json::json!({ "faultcode": "Server", "faultstring": "x".repeat(1 << 20) });
        (StatusCode::INTERNAL_SERVER_ERROR, text.to_string())
    };
    let router =
        Router::new().route("/v1/commands/", get(endless).post(long)).route("/v1/events", get(nested));
    let agent = client(router).await;
    assert!(matches!(agent.list().await, Err(AgentError::Excessive { .. })));
    assert!(matches!(agent.events(0, Duration::ZERO).await, Err(AgentError::Excessive { .. })));
    let refused = agent.run("standby.sync", Map::new(), true).await.unwrap_err().to_string();
    assert!(refused.len() < 2 * TEXT_LIMIT, "{} bytes", refused.len());
}
