//! The yardstick: hyper alone. Reads a JSON body, answers a JSON body as long as the sold-out problem.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// Length of the fields themselves.
const FIELDS_BYTES: usize = r#"{"item":"sku-1","quantity":1,"padding":""}"#.len();

#[derive(clap::Args)]
pub struct Options {
    /// Length of the body of an answer
    #[arg(long, default_value_t = 160)]
    answer_bytes: usize,
}

#[derive(Deserialize)]
struct Asked<'a> {
    item: &'a str,
    quantity: u32,
}

#[derive(Serialize)]
struct Answered<'a> {
    item: &'a str,
    quantity: u32,
    padding: &'a str,
}

/// Serves until it is killed; says where on stdout.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let padding: Arc<str> = "."
        .repeat(options.answer_bytes.saturating_sub(FIELDS_BYTES))
        .into();
    crate::shell::runtime()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("ready {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true).context("nodelay")?;
            let padding = Arc::clone(&padding);
            let service = service_fn(move |request| answer(request, Arc::clone(&padding)));
            tokio::spawn(async move {
                // A client that goes away is no matter of ours.
                let _ = hyper::server::conn::http1::Builder::new()
                    .pipeline_flush(true)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

async fn answer(
    request: Request<Incoming>,
    padding: Arc<str>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let Ok(asked) = serde_json::from_slice::<Asked<'_>>(&body) else {
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let mut answered = Vec::with_capacity(FIELDS_BYTES + padding.len() + 32);
    let written = serde_json::to_writer(
        &mut answered,
        &Answered {
            item: asked.item,
            quantity: asked.quantity,
            padding: &padding,
        },
    );
    let mut response = Response::new(Full::new(Bytes::from(answered)));
    if written.is_err() {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
