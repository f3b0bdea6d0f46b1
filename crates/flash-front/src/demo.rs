//! What `stampede demo` shows: a login for anybody, and a live page.

use flash_types::bounds;
use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;

use crate::bodies;
use crate::jwt::sign_hs256;
use crate::outcome::Problem;
use crate::reply::Reply;
use crate::service::Call;

/// How long a demo token lasts, seconds.
const TOKEN_S: i64 = 3_600;
const PAGE: &str = include_str!("demo.html");
/// The page's own script and style, and nothing from elsewhere.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

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
    Reply::text("text/html; charset=utf-8", PAGE).with(header::CONTENT_SECURITY_POLICY, POLICY)
}
