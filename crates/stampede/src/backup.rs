//! `stampede backup`: a proved copy of the embedded store, and of the campaigns' file, from beside the engine.

mod campaigns;

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use flash_store::{BackupContent, BackupError, BackupStep, back_up};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;
use crate::audit::CAMPAIGNS_FILE;
use crate::cli::BackupArgs;
use crate::logs::say;
use crate::serve::Signals;

const REDIS: &str = "the embedded store is backed up by this command, Redis by its own means: BGSAVE, or a copy of its \
                     append-only files (docs/OPERATING.md)";

/// Makes the copy and says what is in it.
pub(crate) fn run(args: &BackupArgs) -> Result<(), Failure> {
    if args.redis.is_some() {
        return Err(Failure::CannotStart(REDIS.into()));
    }
    let signals = Signals::listen()?;
    let database = args.data.join(CAMPAIGNS_FILE);
    let copy_campaigns = |file: &Path| {
        let begun = Instant::now();
        let copied = campaigns::copy(&database, file, args.force, &|| signals.is_told())?;
        let line = told_of_campaigns(file, &copied, begun.elapsed().as_secs_f64());
        Ok::<_, Failure>((copied, line))
    };
    if args.campaigns_only {
        if !database.is_file() {
            return Err(Failure::CannotStart(format!(
                "there is no {CAMPAIGNS_FILE} in {}; PostgreSQL is backed up by pg_dump",
                args.data.display()
            )));
        }
        let (copied, line) = copy_campaigns(&args.file)?;
        copied.name()?;
        say(&line);
        return Ok(());
    }
    // Before the sales: campaigns that are a little older than the sales find the rest of their events in them; the other
    // way round some would never be told. Not where there are no sales: that is told below.
    let beside = campaigns::beside(&args.file);
    let has_both = database.is_file() && args.data.join("stampede.db").is_file();
    let copied = if has_both {
        Some(copy_campaigns(&beside)?)
    } else {
        None
    };
    let (content, elapsed_s) = copy_sales(args, &signals)?;
    say(&told(args, &content, elapsed_s));
    match copied {
        Some((copied, line)) => {
            copied.name()?;
            say(&line);
        }
        None => eprintln!(
            "stampede: no campaigns were copied: there is no {CAMPAIGNS_FILE} in {}; those in PostgreSQL are backed up by pg_dump",
            args.data.display()
        ),
    }
    Ok(())
}

fn copy_sales(args: &BackupArgs, signals: &Signals) -> Result<(BackupContent, f64), Failure> {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(0)
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{bar:32.green/white} {percent}%  {msg}");
    bar.set_style(style.map_err(anyhow::Error::from)?);
    let begun = Instant::now();
    let made = back_up(&args.data, &args.file, args.force, &mut |step| {
        match step {
            BackupStep::Copying { pages, of_pages } => {
                bar.set_length(of_pages);
                bar.set_position(pages);
                bar.set_message("copying");
            }
            BackupStep::Proving => bar.set_message("proving the copy"),
        }
        if signals.is_told() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    bar.finish_and_clear();
    let content = made.map_err(failure)?;
    Ok((content, begun.elapsed().as_secs_f64()))
}

fn told_of_campaigns(file: &Path, copied: &campaigns::Copied, elapsed_s: f64) -> String {
    let report = &copied.report;
    format!(
        "{} holds the campaigns with {} accounts and {} transfers; {:.1} MB, copied and proved in {elapsed_s:.1} s",
        file.display(),
        report.accounts,
        report.transfers,
        copied.bytes as f64 / 1e6,
    )
}

fn told(args: &BackupArgs, content: &BackupContent, elapsed_s: f64) -> String {
    let last = match content.last_at {
        Some(at) => format!("up to batch {} of {at}", content.last_batch),
        None => "without a batch yet".to_owned(),
    };
    format!(
        "{} holds {} sales and {} reservations, {last}; {:.1} MB, copied and proved in {elapsed_s:.1} s",
        args.file.display(),
        content.sales,
        content.reservations,
        content.bytes as f64 / 1e6,
    )
}

fn failure(error: BackupError) -> Failure {
    let line = error.to_string();
    match error {
        BackupError::NoStore { hint, .. } if !hint.is_empty() => {
            Failure::CannotStart(format!("{line}; {REDIS}"))
        }
        BackupError::NoStore { .. }
        | BackupError::Store(_)
        | BackupError::Older { .. }
        | BackupError::Exists { .. }
        | BackupError::Target { .. } => Failure::CannotStart(line),
        BackupError::Damaged { .. } => Failure::Books(line),
        BackupError::Full { .. } | BackupError::Interrupted => Failure::Other(error.into()),
    }
}
