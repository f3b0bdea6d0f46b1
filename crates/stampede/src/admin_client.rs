//! Speaking to the admin API of a running engine, for the commands that plan and run sales.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use comfy_table::{Table, presets};
use crowd::client::{Client, Request, Response, Timeouts};
use serde_json::Value;

use crate::cli::AdminArgs;
use crate::keys::{KeysFile, path_in};

/// Name of the variable that holds the admin key.
const KEY_VARIABLE: &str = "STAMPEDE_ADMIN_KEY";

/// One connection to the admin port, with its key.
pub(crate) struct AdminClient {
    client: Client,
    key: String,
    url: String,
    runtime: tokio::runtime::Runtime,
}

impl AdminClient {
    /// Finds address and key.
    pub(crate) fn new(args: &AdminArgs) -> anyhow::Result<Self> {
        Self::patient(args, Duration::from_secs(15))
    }

    /// The same, for what takes its time.
    pub(crate) fn patient(args: &AdminArgs, answer: Duration) -> anyhow::Result<Self> {
        let address = address_of(&args.admin_url)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no event loop to be had")?;
        let timeouts = Timeouts {
            connect: Duration::from_secs(3),
            answer,
        };
        Ok(Self {
            client: Client::new(address, timeouts),
            key: key_of(args)?,
            url: args.admin_url.clone(),
            runtime,
        })
    }

    /// Sends a command; an answer that is not 2xx is an error that tells the problem.
    pub(crate) fn call(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let response = self.send(method, path, body)?;
        if !(200..300).contains(&response.status) {
            bail!("{}", problem(&response));
        }
        response.json().context("the answer is no JSON")
    }

    /// Sends a command and gives the answer whatever it is.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Response> {
        self.send_with_key(method, path, body, None)
    }

    /// The same, maybe under an idempotency key.
    pub(crate) fn send_with_key(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> anyhow::Result<Response> {
        let mut draft = Request::draft(method, path).bearer(&self.key);
        if let Some(key) = key {
            draft = draft.key(key);
        }
        let request = match body {
            Some(body) => draft.json(&body.to_string()),
            None => draft.bare(),
        };
        let sent = self.runtime.block_on(self.client.send(&request));
        sent.map_err(|error| {
            anyhow!("nobody answers at {} ({error}): is `stampede serve` running, and is that its admin address (--admin-url)?", self.url)
        })
    }

    /// Waits between two looks.
    pub(crate) fn wait(&self, time: Duration) {
        // Made within the runtime: a timer belongs to one.
        self.runtime
            .block_on(async { tokio::time::sleep(time).await });
    }
}

/// The problem in one line: outcome, detail; below it what was found, and what to do.
pub(crate) fn problem(response: &Response) -> String {
    let Ok(problem) = response.json() else {
        return format!("the engine answered {}", response.status);
    };
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    let mut line = format!(
        "{} ({}): {}",
        text("outcome"),
        response.status,
        text("detail")
    );
    if let Some(findings) = problem["findings"].as_array() {
        line.push_str(&told_findings(findings));
    }
    if response.status == 401 {
        line.push_str(&format!(
            "\n  give the key by {KEY_VARIABLE}, or --data DIR of the engine's data folder"
        ));
    }
    line
}

/// What was found, and the words that let it pass.
fn told_findings(findings: &[Value]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["code", "item", "what"]);
    let mut codes: Vec<&str> = Vec::new();
    for finding in findings {
        let [code, item, detail] =
            ["code", "item", "detail"].map(|name| finding[name].as_str().unwrap_or("-"));
        table.add_row([code, item, detail]);
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    format!(
        "\n{table}\nCorrect the prices, or, where they are meant so, publish with --accept {}",
        codes.join(" ")
    )
}

fn key_of(args: &AdminArgs) -> anyhow::Result<String> {
    if let Ok(key) = std::env::var(KEY_VARIABLE)
        && !key.is_empty()
    {
        return Ok(key);
    }
    let data = args.data.as_ref().with_context(|| {
        format!("no admin key: set {KEY_VARIABLE}, or give --data DIR of the engine's data folder")
    })?;
    let keys = KeysFile::read(data).map_err(anyhow::Error::msg)?;
    let missing = || {
        format!(
            "there is no {}: start `stampede serve --data {}` first, or name its folder with --data",
            path_in(data).display(),
            data.display()
        )
    };
    Ok(keys.with_context(missing)?.admin_key)
}

fn address_of(url: &str) -> anyhow::Result<SocketAddr> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("--admin-url {url:?} must begin with http://"))?;
    let authority = rest.trim_end_matches('/');
    let authority = if authority.contains(':') {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    authority
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .with_context(|| format!("--admin-url {url:?} names no host that can be found"))
}
