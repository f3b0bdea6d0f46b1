//! The command line: what there is to say, and what each word means.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A flash-sale engine: never sells a unit twice, never loses a purchase it said yes to.
#[derive(Debug, Parser)]
#[command(
    name = "stampede",
    version,
    propagate_version = true,
    after_help = "Try it:   stampede demo\n\
                  Run it:   stampede serve --data ./stampede-data\n\
                  Sell:     stampede sale apply config/examples/sale.toml --publish --data ./stampede-data\n\
                  Check it: stampede audit --data ./stampede-data\n\n\
                  Exit codes: 0 done or graceful stop, 1 failed, 2 cannot start as told, 3 the books do not balance."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the engine until SIGTERM or SIGINT.
    Serve(ServeArgs),
    /// Run a whole sale with a crowd, show it live, audit the books, and stay up for a look in the browser.
    Demo(DemoArgs),
    /// Prove the books of sales and campaigns from their stores alone, stopped or running. Exit 3 if they do not balance.
    #[command(
        after_help = "Campaigns are in <data>/campaigns.db, or where `serve` was told by --database: then say it here as well.\n\
                  Their database is only read. Exit 2: it cannot be reached, or is none of this program's."
    )]
    Audit(AuditArgs),
    /// Copy the embedded store to one file, also while the engine sells; the copy is proved before it gets its name.
    #[command(
        after_help = "Campaigns in <data>/campaigns.db are copied to FILE.campaigns.db, proved as well. Those in PostgreSQL\n\
                  are not: pg_dump does that.\n\
                  To restore: stop the engine, copy FILE to <new folder>/stampede.db, FILE.campaigns.db to\n\
                  <new folder>/campaigns.db and keys.toml beside them, start there, audit. docs/OPERATING.md tells it\n\
                  step by step.\n\
                  With --redis the sales are in Redis: back Redis up by its own means (BGSAVE, a copy of its\n\
                  append-only files), and the campaigns by --campaigns-only."
    )]
    Backup(BackupArgs),
    /// Play a sale against a copy with buyers who are none: what would happen, and whether this machine holds the
    /// crowd. Exit 1 if it does not.
    Rehearse(RehearseArgs),
    /// Check a configuration, or print it with every value in force.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Plan and run sales through the admin API.
    Sale(SaleCommand),
    /// Plan and run campaigns through the admin API.
    Campaign(crate::campaign::CampaignCommand),
    /// Recompute every draw of a campaign from its published proof file alone. Exit 3 if something does not follow, 2 if
    /// there is no file to check.
    VerifyDraws(VerifyDrawsArgs),
    /// Look at webhooks and deliver events again through the admin API (needs the role operator).
    Webhook(WebhookCommand),
}

/// Flags win over the environment, the environment over the file.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file (see config/stampede.toml for every key).
    #[arg(long, env = "STAMPEDE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Data folder; made if its parent exists. [default: ./stampede-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Redis for the purchase path instead of the embedded store: redis://, rediss:// or redis+unix://.
    #[arg(long, value_name = "URL", help_heading = "Redis")]
    pub(crate) redis: Option<String>,
    /// Database of the campaigns: sqlite:FILE or postgres://… [default: sqlite:<data>/campaigns.db]
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// Name of this node in Redis; a second process with it takes over from the first. [default: kept in <data>/node]
    #[arg(long, value_name = "ID", help_heading = "Redis")]
    pub(crate) node: Option<String>,
    /// Address of the public port; port 0 takes a free one. [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) public: Option<String>,
    /// Address of the admin port; port 0 takes a free one. [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<String>,
    /// The copy of a rehearsal: ends, and takes its folder along, once the process that started it is gone.
    #[arg(long, hide = true)]
    pub(crate) rehearsal: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many buyers come.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) buyers: u32,
    /// How many units there are.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) stock: u32,
    /// Data folder; kept. Without it a temporary one is made and removed at the end.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// End when the sale is over: 0 only if the books balance and exactly the stock was sold.
    #[arg(long)]
    pub(crate) exit: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    pub(crate) store: AuditStore,
    /// Certificates (PEM) of the authority that signed that of Redis; the system's where absent.
    #[arg(long, value_name = "FILE", requires = "redis", conflicts_with = "data")]
    pub(crate) redis_ca: Option<PathBuf>,
    /// Database of the campaigns: sqlite:FILE or postgres://… [default: <data>/campaigns.db, where it is]
    #[arg(
        long,
        value_name = "URL",
        env = "STAMPEDE_DATABASE",
        hide_env_values = true
    )]
    pub(crate) database: Option<String>,
    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Exactly one: the store is where the engine was told to keep it.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct AuditStore {
    /// Data folder of a stopped or running engine.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Redis of a stopped or running engine: redis://[user:password@]host:port/database, rediss:// or redis+unix://.
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Where to; its folder must exist.
    pub(crate) file: PathBuf,
    /// Data folder of a stopped or running engine.
    #[arg(long, value_name = "DIR", default_value = "./stampede-data")]
    pub(crate) data: PathBuf,
    /// Replace FILE if it exists, once the new copy is whole.
    #[arg(long)]
    pub(crate) force: bool,
    /// Copy <data>/campaigns.db alone, to FILE itself.
    #[arg(long)]
    pub(crate) campaigns_only: bool,
    /// Taken only to say what to do instead.
    #[arg(long, value_name = "URL", hide = true)]
    pub(crate) redis: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RehearseArgs {
    /// A draft or published sale of a running engine, or a file as `sale apply` takes it.
    #[arg(value_name = "ID|FILE")]
    pub(crate) sale: String,
    /// How many buyers come. [default: the sale's expected_crowd, else 20 for each unit, at most 50,000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub(crate) buyers: Option<u32>,
    /// How long the sale lasts in the copy. [default: 20, or as long as it is]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(3..=40))]
    pub(crate) seconds: Option<u32>,
    /// Also while a sale of that engine is open: it takes time from its buyers.
    #[arg(long)]
    pub(crate) while_selling: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether the engine would start with it. Exit 2 if not.
    Check(ConfigArgs),
    /// Print every value in force (keys are shown as <hidden>).
    Print(ConfigArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file.
    #[arg(long, env = "STAMPEDE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// Where the admin API listens.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:9090"
    )]
    pub(crate) admin_url: String,
    /// Data folder whose keys.toml holds the admin key (the environment variable STAMPEDE_ADMIN_KEY wins).
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyDrawsArgs {
    /// The file, all pages joined.
    #[arg(required_unless_present = "campaign", conflicts_with = "campaign")]
    pub(crate) file: Option<PathBuf>,
    /// Fetch it from a running engine instead.
    #[arg(long, value_name = "ID")]
    pub(crate) campaign: Option<String>,
    /// Keep what was checked in this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WebhookCommand {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(subcommand)]
    pub(crate) verb: WebhookVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WebhookVerb {
    /// List all webhooks and how they stand.
    List {
        /// List the events that were given up instead, one JSON line each.
        #[arg(long)]
        dead: bool,
    },
    /// Deliver an event again: one that was given up, or one that was delivered before.
    Redeliver {
        /// The event, e<sale>-<generation>-<sequence>.
        event: String,
        /// Only to this webhook. [default: every one that wants it]
        #[arg(long, value_name = "NAME")]
        webhook: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SaleCommand {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(subcommand)]
    pub(crate) verb: SaleVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SaleVerb {
    /// List all sales with their state and stock.
    List,
    /// Make a draft from a TOML file, or replace the draft; times may be relative (now, +10m). A file may hold
    /// several sales.
    Apply {
        /// The sale, or a series of them (see config/examples/sale.toml and series.toml).
        file: PathBuf,
        /// Publish it, or all of them, as well.
        #[arg(long)]
        publish: bool,
        /// Publish though its prices look like mistakes of these kinds.
        #[arg(long, value_name = "CODE", num_args = 1.., requires = "publish")]
        accept: Vec<String>,
    },
    /// Publish a draft: it opens at its start, at once if that has passed.
    Publish {
        /// The sale.
        id: String,
        /// Publish though its prices look like mistakes of these kinds; without it they are listed.
        #[arg(long, value_name = "CODE", num_args = 1..)]
        accept: Vec<String>,
    },
    /// Make it a draft again, while nothing was ever reserved.
    Unpublish {
        /// The sale.
        id: String,
    },
    /// Stop selling for a while.
    Pause {
        /// The sale.
        id: String,
    },
    /// Sell again.
    Resume {
        /// The sale.
        id: String,
    },
    /// End it; open reservations may still be paid until they expire.
    Close {
        /// The sale.
        id: String,
    },
    /// Print its reservations as CSV, one row for each line: paid ones are what is to be shipped.
    Orders {
        /// The sale.
        id: String,
        /// Only those in this state: reserved, confirmed, released, expired or refunded.
        #[arg(long, value_name = "STATE", default_value = "confirmed")]
        state: String,
    },
    /// Print its report: from the try to the money, refusals, sales over time, items, buyers.
    Report {
        /// The sale.
        id: String,
        /// As the admin API gives it, instead of tables.
        #[arg(long, value_name = "FORMAT", value_parser = ["json", "csv"])]
        format: Option<String>,
    },
    /// Give an item of a paused sale another price, for new reservations; prints who bought at another one, as CSV.
    Price {
        /// The sale.
        id: String,
        /// The item.
        item: String,
        /// The new price, minor units.
        #[arg(value_name = "MINOR")]
        price_minor: u64,
        /// Why; kept in the audit log and told in the event.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Release units of an item that planned waves hold back.
    Release {
        /// The sale.
        id: String,
        /// The item.
        item: String,
        /// How many.
        units: u32,
        /// Released once under this key, however often it is said.
        #[arg(long)]
        key: Option<String>,
    },
    /// Tell buyers' differences to a later, lower price as due (events reservation.refund_due), once each; prints them
    /// as JSON lines.
    Protect {
        /// The sale.
        id: String,
        /// Only show them.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print what happened, one event as a JSON line each (needs the role operator).
    Events {
        /// Only of this sale.
        #[arg(long, value_name = "ID")]
        sale: Option<String>,
        /// Only those after this event.
        #[arg(long, value_name = "EVENT")]
        after: Option<String>,
        /// Go on with those to come, until it is ended.
        #[arg(long)]
        follow: bool,
    },
    /// List what a frozen sale's Redis lost of what was acknowledged, one JSON line each (needs the role operator).
    Loss {
        /// The sale.
        id: String,
    },
    /// Take a frozen sale as Redis has it and sell on. The buyers of what is lost hold answers that nothing stands
    /// behind any more: the list is written to FILE first.
    AcceptLoss {
        /// The sale.
        id: String,
        /// Where to write what is lost, one JSON line each. [default: loss-<sale>.jsonl]
        #[arg(long, value_name = "FILE")]
        list: Option<PathBuf>,
    },
}
