//! Logs as JSON lines on stderr; and what a panic ends.

use tracing_subscriber::EnvFilter;

/// Starts logging at a level such as `info` or `flash_engine=debug,info`.
pub(crate) fn start(level: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| format!("log.level {level:?} is not a level: {error}; try \"info\""))?;
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_current_span(false)
        .with_span_list(false);
    // Only the first call in a process takes effect; the demo and tests call it once as well.
    let _ = subscriber.try_init();
    Ok(())
}

/// Crates in which a panic may leave stock half moved: the process must not go on.
const BOOKKEEPERS: [&str; 3] = ["flash-ledger", "flash-engine", "flash-store"];

/// A broken invariant in ledger, engine or store ends the process at once; the store knows what is durable.
/// Any other panic ends only the request that met it.
pub(crate) fn abort_on_broken_books() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        let file = panic.location().map_or("", |location| location.file());
        let is_committer = std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("store-writer"));
        if is_committer || BOOKKEEPERS.iter().any(|name| file.contains(name)) {
            tracing::error!(file, "a broken invariant in the books: ending the process");
            std::process::abort();
        }
    }));
}

/// One line on stdout, for commands whose answer is text.
#[allow(
    clippy::print_stdout,
    reason = "the answer of a command goes to stdout; a closed pipe ends it"
)]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// One line on stderr, beside an answer that programs read.
#[allow(clippy::print_stderr, reason = "it is no part of the answer")]
pub(crate) fn remark(line: &str) {
    eprintln!("{line}");
}
