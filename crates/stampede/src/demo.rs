//! `stampede demo`: a real engine, a real sale, a crowd over real HTTP, a report, an audit, and a page to look at.

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use crowd::api::{Addresses, Api};
use crowd::behaviour::{Progress, SaleParams, Summary, run_sale};
use crowd::log::ClientLog;
use crowd::token::Keys;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::Failure;
use crate::cli::DemoArgs;
use crate::config::Config;
use crate::logs::{say, start as start_logs};
use crate::serve::{self, Running};

/// How often the progress line is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the demo; with `--exit`, an error unless the books balance and exactly the stock was sold.
pub(crate) fn run(args: &DemoArgs) -> Result<(), Failure> {
    start_logs("warn").map_err(Failure::CannotStart)?;
    // Some do not pay and some only try: with fewer buyers the stock would not be sold.
    if args.buyers < args.stock.saturating_mul(2) {
        return Err(Failure::CannotStart(format!(
            "--buyers {} are too few for --stock {}: give at least twice as many",
            args.buyers, args.stock
        )));
    }
    let signals = serve::Signals::listen()?;
    let folder = Folder::new(args.data.as_deref())?;
    let mut config = Config::default();
    config.store.data.clone_from(&folder.path);
    config.public.address = free_or_default(8080).to_string();
    config.admin.address = free_or_default(9090).to_string();
    // The embedded store is not waited for.
    let Some(running) = serve::start(&config, serve::Kind::Demo, &|| false)? else {
        return Ok(());
    };
    say(&format!(
        "The engine is up: buyers at http://{}, metrics at http://{}/metrics, books in {}",
        running.public,
        running.admin,
        folder.path.display()
    ));
    let outcome = sale_and_audit(args, &running, &folder.path, &signals);
    let result = match outcome {
        Ok(good) if args.exit => good,
        Ok(good) => stay(&running, &folder.path, &sale_of(&running), &signals).and(good),
        Err(error) => Err(error.into()),
    };
    running.stop()?;
    result
}

/// Name of the crowd's sale: a folder that is kept may hold earlier demos.
fn sale_of(running: &Running) -> String {
    format!("demo-{}", running.started_at_s)
}

/// The sale, its report, and the audit. The inner result says whether all is as it should be.
fn sale_and_audit(
    args: &DemoArgs,
    running: &Running,
    data: &Path,
    signals: &serve::Signals,
) -> anyhow::Result<Result<(), Failure>> {
    let keys = Keys::read(data)?;
    let addresses = Addresses {
        public: running.public,
        admin: running.admin,
    };
    let mut params = SaleParams::new(addresses, keys, args.buyers, args.stock);
    params.sale_id = sale_of(running);
    let sale_id = params.sale_id.clone();
    say(&format!(
        "{} buyers for {} units; it opens in {:.1} s\n",
        args.buyers,
        args.stock,
        params.opens_in.as_secs_f64()
    ));
    let log = Arc::new(ClientLog::in_memory());
    let summary = watched(params, args.stock, Arc::clone(&log), signals)?;
    say(&report(&summary));
    let findings = checked(addresses, data, &log)?;
    for finding in &findings {
        say(&format!("FOUND: {finding}"));
    }
    let books = flash_settle::audit(data).context("auditing the store")?;
    say(books.to_string().trim_end());
    let sold = format!(
        "{} of {} units sold",
        summary.sold_units, summary.stock_units
    );
    let is_good = books.ok
        && findings.is_empty()
        && summary.audit_ok
        && summary.sold_units == summary.stock_units
        && summary.reserved_units == 0;
    Ok(if is_good {
        say(&format!(
            "\n{sold}, the books of {sale_id} balance, and every answer that a buyer got is in them."
        ));
        Ok(())
    } else {
        Err(Failure::Books(format!("{sold}; see the findings above")))
    })
}

/// Runs the sale on threads of its own and draws its progress meanwhile.
fn watched(
    params: SaleParams,
    stock: u32,
    log: Arc<ClientLog>,
    signals: &serve::Signals,
) -> anyhow::Result<Summary> {
    let progress = Arc::new(Progress::default());
    let crowd = {
        let progress = Arc::clone(&progress);
        std::thread::Builder::new()
            .name("crowd".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(run_sale(params, progress, log))
            })?
    };
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(stock.into())
    } else {
        ProgressBar::hidden()
    };
    bar.set_style(ProgressStyle::with_template(
        "{bar:32.green/white} {pos}/{len} paid  {msg}",
    )?);
    // Without a terminal a line now and then shows that it lives.
    let mut lines_left = 0_u32;
    while !crowd.is_finished() {
        if signals.is_told() {
            bar.finish_and_clear();
            anyhow::bail!("interrupted before the sale was over");
        }
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let message = format!(
            "{} asked, {} reserved, {} refused, {} came back",
            count(&progress.asked),
            count(&progress.reserved),
            count(&progress.refused),
            count(&progress.came_back)
        );
        bar.set_position(count(&progress.paid));
        bar.set_message(message.clone());
        if bar.is_hidden() {
            if lines_left == 0 {
                eprintln!("{} paid, {message}", count(&progress.paid));
                lines_left = 20;
            }
            lines_left -= 1;
        }
        std::thread::park_timeout(DRAW_INTERVAL);
    }
    bar.finish_and_clear();
    crowd
        .join()
        .map_err(|_| anyhow::anyhow!("the crowd's thread panicked"))?
}

/// Holds every answer that the crowd got against what the server and the store say now.
fn checked(addresses: Addresses, data: &Path, log: &ClientLog) -> anyhow::Result<Vec<String>> {
    let keys = Keys::read(data)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let books = runtime.block_on(crowd::check::gather(addresses, &keys, log))?;
    let findings = crowd::check::check(&log.entries(), &log.sights(), &books);
    Ok(findings.iter().map(ToString::to_string).collect())
}

fn report(summary: &Summary) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("asked", summary.asked.to_string());
    row("reserved", summary.reserved.to_string());
    row("same answer again (same key)", summary.replayed.to_string());
    for (outcome, count) in &summary.refused {
        row(&format!("refused: {outcome}"), count.to_string());
    }
    row("fate unknown at first", summary.unknown.to_string());
    row("paid", summary.paid.to_string());
    row("expired unpaid", summary.expired.to_string());
    row(
        "returned units sold to those who waited",
        summary.came_back.to_string(),
    );
    row("p50 / p99 / slowest", {
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        format!(
            "{} / {} / {}",
            ms(summary.p50),
            ms(summary.p99),
            ms(summary.max)
        )
    });
    row("requests per second, busiest / mean", {
        format!("{} / {:.0}", summary.peak_per_s, summary.rate_per_s)
    });
    if let Some(within) = summary.sold_within {
        row(
            "sold out and paid within",
            format!("{:.1} s", within.as_secs_f64()),
        );
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

/// Opens a second, small sale for the browser and waits for Ctrl-C.
fn stay(
    running: &Running,
    data: &Path,
    over: &str,
    signals: &serve::Signals,
) -> Result<(), Failure> {
    let keys = Keys::read(data)?;
    let addresses = Addresses {
        public: running.public,
        admin: running.admin,
    };
    let now = running.clock_now();
    let definition = json!({
        "sale_id": format!("try-it-{}", running.started_at_s),
        "title": "Try it yourself",
        "starts_at": now,
        "ends_at": now.plus(Duration::from_secs(24 * 3600)),
        "currency": "CNY",
        "payment_window_s": 60,
        "items": [{"item": "teapot", "title": "Teapot", "list_price_minor": 19_900,
                   "sale_price_minor": 9_900, "stock_units": 100, "units_per_buyer_max": 2}],
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop to be had")?;
    runtime.block_on(async {
        let mut api = Api::new(addresses, keys);
        // The page shows what is open: the sale that is over would be in the way.
        api.command(over, "close").await?;
        api.publish(&definition).await
    })?;
    say(&format!(
        "\nStill up: look at http://{}/ and buy a teapot. Ctrl-C ends it.",
        running.public
    ));
    running.wait_for_signal(signals);
    Ok(())
}

/// The default port if it is free on loopback, else any free one.
fn free_or_default(port: u16) -> SocketAddr {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(default) {
        Ok(_) => default,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    }
}

/// The data folder: the one given, or a temporary one that goes with the demo.
struct Folder {
    path: PathBuf,
    is_temporary: bool,
}

impl Folder {
    fn new(given: Option<&Path>) -> Result<Self, Failure> {
        if let Some(path) = given {
            return Ok(Self {
                path: path.to_owned(),
                is_temporary: false,
            });
        }
        let path = std::env::temp_dir().join(format!("stampede-demo-{}", std::process::id()));
        Ok(Self {
            path,
            is_temporary: true,
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_temporary {
            // What cannot be removed stays in the system's temporary folder.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
