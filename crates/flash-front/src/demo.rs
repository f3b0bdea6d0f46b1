//! What `stampede demo` shows: a login for anybody, and a live page.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flash_types::bounds;
use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::bodies;
use crate::jwt::sign_hs256;
use crate::outcome::Problem;
use crate::reply::Reply;
use crate::service::Call;

/// How long a demo token lasts, seconds.
const TOKEN_S: i64 = 3_600;
const PAGE: &str = include_str!("demo.html");
/// The page's own script and style, by their hashes, and nothing from elsewhere.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash_of("script"),
        hash_of("style")
    );
    HeaderValue::try_from(policy).expect("base64 and words are ASCII")
});

/// `'sha256-…'` of what stands in the page's only element of that name.
fn hash_of(element: &str) -> String {
    let (opening, closing) = (format!("<{element}>"), format!("</{element}>"));
    let text = PAGE
        .split_once(&opening)
        .and_then(|(_, rest)| rest.split_once(&closing));
    let (text, _) = text.expect("the page has one of each");
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

/// A token for whoever is named.
pub(crate) async fn login(call: &Call<'_>, body: Incoming) -> Result<Reply, Problem> {
    let body = call.body(body, bounds::BODY_BYTES_MAX).await?;
    let buyer = bodies::login(&body)?;
    let secret = call
        .shared()
        .demo_secret
        .as_deref()
        .ok_or(Problem::NoSuchPath)?;
    let exp_s = call.engine().clock().read().wall.0 / 1_000 + TOKEN_S;
    let token = sign_hs256(secret, &buyer, exp_s);
    Reply::of(StatusCode::OK, &json!({"token": token}))
}

/// The live page.
pub(crate) fn page() -> Reply {
    Reply::text("text/html; charset=utf-8", PAGE)
        .with(header::CONTENT_SECURITY_POLICY, POLICY.clone())
}
