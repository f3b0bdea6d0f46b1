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
        let thread = std::thread::current();
        if ends_the_process(thread.name().unwrap_or_default(), file) {
            tracing::error!(file, "a broken invariant in the books: ending the process");
            std::process::abort();
        }
    }));
}

/// Whether a panic in this file on this thread may have left stock half moved. One of the campaigns never does: their
/// books are moved by the database, whole or not at all.
fn ends_the_process(thread: &str, file: &str) -> bool {
    thread.starts_with("store-writer") || BOOKKEEPERS.iter().any(|name| file.contains(name))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_campaigns_does_not_end_the_process() {
        for (thread, file, is_the_end) in [
            ("store-writer", "library/core/src/option.rs", true),
            ("public-0", "crates/flash-ledger/src/shard.rs", true),
            ("campaigns", "crates/side-books/src/books.rs", false),
            ("campaigns", "crates/side-campaign/src/life.rs", false),
            ("campaigns", "library/core/src/option.rs", false),
            ("public-0", "crates/flash-front/src/side.rs", false),
        ] {
            assert_eq!(
                ends_the_process(thread, file),
                is_the_end,
                "{thread} {file}"
            );
        }
    }
}
