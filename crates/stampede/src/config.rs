//! Configuration: one TOML file, overridden by the environment, overridden by flags; typed, complete, checked, or no start.
//!
//! Every key stands, with its default and a comment, in `config/stampede.toml`; a test holds the two together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flash_front::{IpNet, JwtKey, JwtMaterial, Verifier};
use flash_settle::outbox::{Target, Timeouts, WEBHOOKS_MAX};
use flash_store::RedisUrl;
use flash_types::{Durability, ItemId, SaleId, bounds};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use side_books::sql::DatabaseUrl;
use tracing_subscriber::EnvFilter;

use crate::Failure;
use crate::cli::{ConfigCommand, ServeArgs};

/// Prefix of the environment: `STAMPEDE_<SECTION>_<KEY>`, e.g. `STAMPEDE_ENGINE_RETIRE_AFTER_S=60`.
const ENVIRONMENT_PREFIX: &str = "STAMPEDE_";

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) public: Public,
    pub(crate) admin: Admin,
    pub(crate) store: Store,
    pub(crate) engine: Engine,
    pub(crate) keys: Keys,
    pub(crate) webhook: WebhookLimits,
    pub(crate) log: Log,
    pub(crate) campaigns: Campaigns,
    pub(crate) webhooks: Vec<Webhook>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Public {
    pub(crate) address: String,
    pub(crate) threads: usize,
    pub(crate) connections_max: usize,
    pub(crate) header_read_timeout_ms: u64,
    pub(crate) body_read_timeout_ms: u64,
    pub(crate) drain_deadline_ms: u64,
    pub(crate) streams_max: usize,
    pub(crate) cors_origins: Vec<String>,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) storefront_rate_per_s: u32,
    pub(crate) stock_buckets: Vec<u32>,
}

impl Default for Public {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:8080".into(),
            threads: 0,
            connections_max: bounds::CONNECTIONS_MAX,
            header_read_timeout_ms: 10_000,
            body_read_timeout_ms: 5_000,
            drain_deadline_ms: 10_000,
            streams_max: 2_000,
            cors_origins: vec![],
            trusted_proxies: vec![],
            storefront_rate_per_s: 100_000,
            stock_buckets: vec![],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Admin {
    pub(crate) address: String,
    pub(crate) connections_max: usize,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:9090".into(),
            connections_max: 1_000,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    pub(crate) data: PathBuf,
    pub(crate) redis: String,
    pub(crate) redis_ca: PathBuf,
    pub(crate) redis_durability_min: RedisLevel,
    pub(crate) redis_timeout_ms: u64,
    pub(crate) node: String,
}

/// What a Redis has to promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RedisLevel {
    #[serde(rename = "redis_memory")]
    Memory,
    #[serde(rename = "redis_aof_everysec")]
    AofEverysec,
    #[serde(rename = "redis_aof_always")]
    AofAlways,
}

impl RedisLevel {
    /// As the store takes it.
    pub(crate) fn durability(self) -> Durability {
        match self {
            Self::Memory => Durability::RedisMemory,
            Self::AofEverysec => Durability::RedisAofEverysec,
            Self::AofAlways => Durability::RedisAofAlways,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            data: "./stampede-data".into(),
            redis: String::new(),
            redis_ca: PathBuf::new(),
            redis_durability_min: RedisLevel::Memory,
            redis_timeout_ms: 1_000,
            node: String::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Engine {
    pub(crate) request_deadline_ms: u64,
    pub(crate) retire_after_s: u64,
    pub(crate) buyer_keys_max: usize,
    pub(crate) address_keys_max: usize,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            request_deadline_ms: 2_000,
            retire_after_s: 24 * 3600,
            buyer_keys_max: 1 << 20,
            address_keys_max: 1 << 18,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Keys {
    pub(crate) admin: Vec<AdminKey>,
    pub(crate) storefront: Vec<StorefrontKey>,
    pub(crate) buyer_jwt: Vec<BuyerJwt>,
    pub(crate) buyer_jwt_audience: String,
    pub(crate) buyer_jwt_issuer: String,
    pub(crate) campaign_key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminKey {
    pub(crate) name: String,
    pub(crate) roles: Vec<Role>,
    pub(crate) key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Viewer,
    Merchant,
    Reviewer,
    Operator,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StorefrontKey {
    pub(crate) name: String,
    pub(crate) key: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BuyerJwt {
    pub(crate) algorithm: JwtAlgorithm,
    #[serde(default)]
    pub(crate) key_id: String,
    #[serde(default)]
    pub(crate) secret: String,
    #[serde(default)]
    pub(crate) public_key_pem: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum JwtAlgorithm {
    #[serde(rename = "HS256")]
    Hs256,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebhookLimits {
    pub(crate) connect_timeout_ms: u64,
    pub(crate) timeout_ms: u64,
}

impl Default for WebhookLimits {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 3_000,
            timeout_ms: 10_000,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhook {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret_previous: Option<String>,
    #[serde(default)]
    pub(crate) allow_private: bool,
    #[serde(default)]
    pub(crate) sales: Vec<String>,
    #[serde(default)]
    pub(crate) types: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Campaigns {
    pub(crate) enabled: bool,
    pub(crate) database: String,
    pub(crate) threads: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) queue_max: usize,
    pub(crate) deadline_ms: u64,
    pub(crate) address_rate_per_s: u32,
    pub(crate) address_burst: u32,
    pub(crate) zone: String,
    pub(crate) notifier: Notifier,
    pub(crate) sale_reminders: SaleReminders,
}

impl Default for Campaigns {
    fn default() -> Self {
        Self {
            enabled: true,
            database: String::new(),
            threads: 1,
            in_flight_max: 256,
            queue_max: 1_024,
            deadline_ms: 2_000,
            address_rate_per_s: 50,
            address_burst: 200,
            zone: "Asia/Shanghai".into(),
            notifier: Notifier::default(),
            sale_reminders: SaleReminders::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SaleReminders {
    pub(crate) before_s: Vec<u32>,
    /// 0: none.
    pub(crate) second_after_s: u32,
}

impl Default for SaleReminders {
    fn default() -> Self {
        Self {
            before_s: vec![3_600, 600],
            second_after_s: 0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Notifier {
    pub(crate) url: String,
    pub(crate) secret: String,
    pub(crate) secret_previous: String,
    pub(crate) allow_private: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    pub(crate) level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
        }
    }
}

/// `stampede config check | print`.
pub(crate) fn run(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(args) => {
            Config::load(args.config.as_deref(), &environment()).map_err(Failure::CannotStart)?;
            crate::logs::say(&format!(
                "{} is good",
                args.config
                    .as_deref()
                    .map_or("the default configuration".into(), |p| p
                        .display()
                        .to_string())
            ));
        }
        ConfigCommand::Print(args) => {
            let mut config = Config::load(args.config.as_deref(), &environment())
                .map_err(Failure::CannotStart)?;
            config.hide_keys();
            let text = toml::to_string_pretty(&config).map_err(anyhow::Error::from)?;
            crate::logs::say(text.trim_end());
        }
    }
    Ok(())
}

/// The variables of this process that are ours.
pub(crate) fn environment() -> Vec<(String, String)> {
    std::env::vars()
        .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX))
        .collect()
}

impl Config {
    /// What is in force for `stampede serve`.
    pub(crate) fn for_serve(args: &ServeArgs) -> Result<Self, String> {
        let mut config = Self::load(args.config.as_deref(), &environment())?;
        if let Some(data) = &args.data {
            config.store.data.clone_from(data);
        }
        if let Some(redis) = &args.redis {
            config.store.redis.clone_from(redis);
        }
        if let Some(database) = &args.database {
            config.campaigns.database.clone_from(database);
        }
        if let Some(node) = &args.node {
            config.store.node.clone_from(node);
        }
        if let Some(public) = &args.public {
            config.public.address.clone_from(public);
        }
        if let Some(admin) = &args.admin {
            config.admin.address.clone_from(admin);
        }
        config.check()?;
        Ok(config)
    }

    /// Reads the file, lays the environment over it and checks the whole.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: &[(String, String)],
    ) -> Result<Self, String> {
        let text = match file {
            None => String::new(),
            Some(path) => std::fs::read_to_string(path).map_err(|error| {
                format!("cannot read the configuration {}: {error}", path.display())
            })?,
        };
        let name = file.map_or("configuration".into(), |path| path.display().to_string());
        // Parsed once as it stands, so that a mistake is told with its line.
        let _: Self = toml::from_str(&text).map_err(|error| located(&name, &text, &error))?;
        let mut table: toml::Table =
            toml::from_str(&text).map_err(|error| located(&name, &text, &error))?;
        for (variable, value) in environment {
            overlay(&mut table, variable, value)?;
        }
        let config: Self = table.try_into().map_err(|error: toml::de::Error| {
            format!("environment or {name}: {}", error.message())
        })?;
        config
            .check()
            .map_err(|why| placed(&name, &text, environment, &why))?;
        Ok(config)
    }

    /// Holds values against their bounds and against each other.
    fn check(&self) -> Result<(), String> {
        let (public, admin) = (self.public_addr()?, self.admin_addr()?);
        if public == admin && public.port() != 0 {
            return Err(format!(
                "admin.address and public.address are both {public}: give them two ports"
            ));
        }
        let Public {
            address: _,
            threads,
            connections_max,
            header_read_timeout_ms,
            body_read_timeout_ms,
            drain_deadline_ms,
            streams_max,
            cors_origins: _,
            trusted_proxies: _,
            storefront_rate_per_s,
            stock_buckets,
        } = &self.public;
        in_range("public.threads", *threads as u64, 0, 256)?;
        in_range(
            "public.connections_max",
            *connections_max as u64,
            16,
            1_000_000,
        )?;
        in_range(
            "public.header_read_timeout_ms",
            *header_read_timeout_ms,
            100,
            60_000,
        )?;
        in_range(
            "public.body_read_timeout_ms",
            *body_read_timeout_ms,
            100,
            60_000,
        )?;
        in_range("public.drain_deadline_ms", *drain_deadline_ms, 0, 600_000)?;
        in_range(
            "public.streams_max",
            *streams_max as u64,
            0,
            *connections_max as u64,
        )?;
        let rate_max = bounds::RATE_PER_S_MAX.into();
        in_range(
            "public.storefront_rate_per_s",
            (*storefront_rate_per_s).into(),
            1,
            rate_max,
        )?;
        if !stock_buckets.is_sorted_by(|a, b| a < b) {
            return Err("public.stock_buckets must ascend, e.g. [0, 10, 100]".into());
        }
        in_range(
            "admin.connections_max",
            self.admin.connections_max as u64,
            4,
            100_000,
        )?;
        let Engine {
            request_deadline_ms,
            retire_after_s,
            buyer_keys_max,
            address_keys_max,
        } = &self.engine;
        in_range(
            "engine.request_deadline_ms",
            *request_deadline_ms,
            50,
            60_000,
        )?;
        in_range("engine.retire_after_s", *retire_after_s, 0, 366 * 24 * 3600)?;
        in_range(
            "engine.buyer_keys_max",
            *buyer_keys_max as u64,
            1_024,
            1 << 28,
        )?;
        in_range(
            "engine.address_keys_max",
            *address_keys_max as u64,
            1_024,
            1 << 28,
        )?;
        self.check_store()?;
        self.check_campaigns()?;
        self.trusted_proxies()?;
        check_level(&self.log.level)?;
        self.check_webhooks()?;
        self.check_keys()
    }

    fn check_store(&self) -> Result<(), String> {
        let store = &self.store;
        in_range("store.redis_timeout_ms", store.redis_timeout_ms, 50, 60_000)?;
        if !store.node.is_empty() {
            ItemId::parse(&store.node)
                .map_err(|bad| format!("store.node {:?} {bad}", store.node))?;
        }
        if self.redis_url()?.is_some() && store.redis_timeout_ms > self.engine.request_deadline_ms {
            return Err(format!(
                "store.redis_timeout_ms is {}; it must not be more than engine.request_deadline_ms ({}), or nobody \
                 would wait for the second try",
                store.redis_timeout_ms, self.engine.request_deadline_ms
            ));
        }
        Ok(())
    }

    fn check_campaigns(&self) -> Result<(), String> {
        let Campaigns {
            enabled: _,
            database: _,
            threads,
            in_flight_max,
            queue_max,
            deadline_ms,
            address_rate_per_s,
            address_burst,
            zone: _,
            notifier,
            sale_reminders,
        } = &self.campaigns;
        in_range("campaigns.threads", *threads as u64, 1, 64)?;
        in_range("campaigns.in_flight_max", *in_flight_max as u64, 1, 10_000)?;
        in_range("campaigns.queue_max", *queue_max as u64, 0, 100_000)?;
        in_range("campaigns.deadline_ms", *deadline_ms, 50, 60_000)?;
        let rate_max = bounds::RATE_PER_S_MAX.into();
        for (key, value) in [
            ("campaigns.address_rate_per_s", *address_rate_per_s),
            ("campaigns.address_burst", *address_burst),
        ] {
            in_range(key, value.into(), 1, rate_max)?;
        }
        if sale_reminders.before_s.len() > 8 {
            return Err("campaigns.sale_reminders.before_s holds more than 8 times".into());
        }
        for before_s in &sale_reminders.before_s {
            let key = "campaigns.sale_reminders.before_s";
            in_range(key, u64::from(*before_s), 60, 60 * 86_400)?;
        }
        let second = u64::from(sale_reminders.second_after_s);
        if second > 0 {
            in_range(
                "campaigns.sale_reminders.second_after_s",
                second,
                60,
                60 * 86_400,
            )?;
        }
        if !notifier.url.is_empty() {
            let is_http =
                notifier.url.starts_with("https://") || notifier.url.starts_with("http://");
            if !is_http {
                return Err("campaigns.notifier.url must begin with https:// or http://".into());
            }
            if notifier.secret.len() < 16 {
                return Err(
                    "campaigns.notifier.secret must be at least 16 characters: it signs every notice"
                        .into(),
                );
            }
        }
        let key = &self.keys.campaign_key;
        if !key.is_empty() && crate::keys::secret_of_hex(key).is_none() {
            return Err(
                "keys.campaign_key must be 64 hexadecimal digits; make one with: openssl rand -hex 32"
                    .into(),
            );
        }
        self.database_url()?;
        self.zone().map(|_| ())
    }

    /// Where campaigns are stored.
    pub(crate) fn database_url(&self) -> Result<DatabaseUrl, String> {
        if self.campaigns.database.is_empty() {
            return Ok(DatabaseUrl::Sqlite(self.store.data.join("campaigns.db")));
        }
        // Not shown: it may hold a password.
        let url = self.campaigns.database.parse();
        url.map_err(|bad| format!("campaigns.database {bad}"))
    }

    /// When those who asked for it are reminded of a sale.
    pub(crate) fn sale_reminders(&self) -> side_campaign::definition::Reminders {
        let told = &self.campaigns.sale_reminders;
        side_campaign::definition::Reminders {
            before_s: told.before_s.clone(),
            second_after_s: Some(told.second_after_s).filter(|after_s| *after_s > 0),
        }
    }

    /// Zone of the shop's days.
    pub(crate) fn zone(&self) -> Result<TimeZone, String> {
        let name = &self.campaigns.zone;
        TimeZone::get(name).map_err(|_| {
            format!(
                "campaigns.zone {name:?} is not a time zone, such as \"Asia/Shanghai\" or \"UTC\""
            )
        })
    }

    /// The Redis that stores the purchase path; `None`: the embedded store does.
    pub(crate) fn redis_url(&self) -> Result<Option<RedisUrl>, String> {
        if self.store.redis.is_empty() {
            return Ok(None);
        }
        let url = RedisUrl::parse(&self.store.redis);
        url.map(Some).map_err(|why| format!("store.redis: {why}"))
    }

    /// Whom to believe about X-Forwarded-For.
    pub(crate) fn trusted_proxies(&self) -> Result<Vec<IpNet>, String> {
        let nets = self.public.trusted_proxies.iter();
        nets.map(|net| {
            net.parse()
                .map_err(|bad| format!("public.trusted_proxies {net:?} {bad}"))
        })
        .collect()
    }

    fn check_keys(&self) -> Result<(), String> {
        self.check_key_twice()?;
        let long = |what: &str, key: &str| {
            if key.len() >= 16 {
                Ok(())
            } else {
                Err(format!(
                    "{what} must be at least 16 characters; make one with: head -c 32 /dev/urandom | base64"
                ))
            }
        };
        for (index, key) in self.keys.admin.iter().enumerate() {
            long(&format!("keys.admin[{index}].key"), &key.key)?;
            if key.name.is_empty() || key.roles.is_empty() {
                return Err(format!(
                    "keys.admin[{index}] needs a name and at least one role"
                ));
            }
        }
        for (index, key) in self.keys.storefront.iter().enumerate() {
            long(&format!("keys.storefront[{index}].key"), &key.key)?;
        }
        for (index, jwt) in self.keys.buyer_jwt.iter().enumerate() {
            match jwt.algorithm {
                JwtAlgorithm::Hs256 => {
                    long(&format!("keys.buyer_jwt[{index}].secret"), &jwt.secret)?
                }
                JwtAlgorithm::Rs256 | JwtAlgorithm::EdDsa if jwt.public_key_pem.is_empty() => {
                    return Err(format!("keys.buyer_jwt[{index}].public_key_pem is missing"));
                }
                JwtAlgorithm::Rs256 | JwtAlgorithm::EdDsa => {}
            }
            Verifier::new(&[jwt.as_key()], None, None)
                .map_err(|bad| format!("keys.buyer_jwt[{index}]: {bad}"))?;
        }
        Ok(())
    }

    /// One key in two places would give the storefront the rights of an operator.
    fn check_key_twice(&self) -> Result<(), String> {
        let admin = self.keys.admin.iter().map(|key| &key.key);
        let storefront = self.keys.storefront.iter().map(|key| &key.key);
        let secrets = self.keys.buyer_jwt.iter().map(|jwt| &jwt.secret);
        let mut seen = std::collections::HashSet::new();
        let all = admin
            .chain(storefront)
            .chain(secrets)
            .filter(|key| !key.is_empty());
        match all.into_iter().find(|key| !seen.insert(*key)) {
            Some(_) => Err(
                "keys: one key stands in two places; every caller needs a key of its own".into(),
            ),
            None => Ok(()),
        }
    }

    fn check_webhooks(&self) -> Result<(), String> {
        let WebhookLimits {
            connect_timeout_ms,
            timeout_ms,
        } = self.webhook;
        in_range("webhook.timeout_ms", timeout_ms, 100, 60_000)?;
        in_range(
            "webhook.connect_timeout_ms",
            connect_timeout_ms,
            100,
            timeout_ms,
        )?;
        if self.webhooks.len() > WEBHOOKS_MAX {
            return Err(format!(
                "webhooks are {}; at most {WEBHOOKS_MAX} are taken",
                self.webhooks.len()
            ));
        }
        self.targets().map(|_| ())
    }

    /// Where events are posted to.
    pub(crate) fn targets(&self) -> Result<Vec<Target>, String> {
        let mut targets: Vec<Target> = Vec::new();
        for (index, webhook) in self.webhooks.iter().enumerate() {
            let sale = |id: &String| {
                SaleId::parse(id).map_err(|bad| format!("webhooks[{index}].sales {id:?} {bad}"))
            };
            let target = Target {
                name: webhook.name.clone(),
                url: webhook.url.clone(),
                secret: webhook.secret.clone(),
                secret_previous: webhook.secret_previous.clone(),
                allow_private: webhook.allow_private,
                sales: webhook.sales.iter().map(sale).collect::<Result<_, _>>()?,
                types: webhook.types.clone(),
            };
            let wrong = |why| format!("webhooks[{index}].{why}");
            target.check().map_err(wrong)?;
            if targets.iter().any(|other| other.name == target.name) {
                return Err(format!(
                    "webhooks[{index}].name {:?} is there twice; how far each is, is kept by its name",
                    target.name
                ));
            }
            targets.push(target);
        }
        Ok(targets)
    }

    /// How long a delivery may take.
    pub(crate) fn webhook_timeouts(&self) -> Timeouts {
        Timeouts {
            connect: Duration::from_millis(self.webhook.connect_timeout_ms),
            whole: Duration::from_millis(self.webhook.timeout_ms),
        }
    }

    /// Where buyers and the storefront connect.
    pub(crate) fn public_addr(&self) -> Result<SocketAddr, String> {
        address("public.address", &self.public.address)
    }

    /// Where operators connect.
    pub(crate) fn admin_addr(&self) -> Result<SocketAddr, String> {
        address("admin.address", &self.admin.address)
    }

    fn hide_keys(&mut self) {
        let hidden = "<hidden>";
        if let Ok(Some(url)) = self.redis_url() {
            self.store.redis = url.shown();
        }
        self.keys
            .admin
            .iter_mut()
            .for_each(|key| key.key = hidden.into());
        self.keys
            .storefront
            .iter_mut()
            .for_each(|key| key.key = hidden.into());
        if let Ok(url) = self.database_url()
            && !self.campaigns.database.is_empty()
        {
            self.campaigns.database = url.to_string();
        }
        let notifier = &mut self.campaigns.notifier;
        if let Some(end) = notifier.url.find(['?', '#']) {
            notifier.url.truncate(end);
            notifier.url.push_str("?<hidden>");
        }
        for secret in [
            &mut notifier.secret,
            &mut notifier.secret_previous,
            &mut self.keys.campaign_key,
        ] {
            if !secret.is_empty() {
                *secret = hidden.into();
            }
        }
        for webhook in &mut self.webhooks {
            let shown = webhook.as_shown();
            *webhook = shown;
        }
        for jwt in self
            .keys
            .buyer_jwt
            .iter_mut()
            .filter(|jwt| !jwt.secret.is_empty())
        {
            jwt.secret = hidden.into();
        }
    }
}

impl Webhook {
    /// Without its secrets; a query may hold one too.
    fn as_shown(&self) -> Self {
        let hidden = || "<hidden>".to_owned();
        let end = self.url.find(['?', '#']).unwrap_or(self.url.len());
        let query = if end < self.url.len() {
            "?<hidden>"
        } else {
            ""
        };
        Self {
            url: format!("{}{query}", &self.url[..end]),
            secret: hidden(),
            secret_previous: self.secret_previous.as_ref().map(|_| hidden()),
            ..self.clone()
        }
    }
}

impl BuyerJwt {
    /// As the front takes it.
    pub(crate) fn as_key(&self) -> JwtKey {
        JwtKey {
            kid: Some(self.key_id.clone()).filter(|id| !id.is_empty()),
            material: match self.algorithm {
                JwtAlgorithm::Hs256 => JwtMaterial::Hs256(self.secret.clone().into_bytes()),
                JwtAlgorithm::Rs256 => JwtMaterial::Rs256Pem(self.public_key_pem.clone()),
                JwtAlgorithm::EdDsa => JwtMaterial::EdDsaPem(self.public_key_pem.clone()),
            },
        }
    }
}

fn address(key: &str, text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{key} {text:?} is not an address with a port, such as 127.0.0.1:8080")
    })
}

/// `info`, or per part `info,flash_engine=debug`: a word that is no level would silence everything.
fn check_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |part: &str| {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        LEVELS.contains(&level.trim())
    };
    if text.split(',').all(is_level) && EnvFilter::try_new(text).is_ok() {
        Ok(())
    } else {
        Err(format!(
            "log.level {text:?} is not a level (off, error, warn, info, debug, trace); try \"info\" or \"info,flash_engine=debug\""
        ))
    }
}

fn in_range(key: &str, value: u64, min: u64, max: u64) -> Result<(), String> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(format!("{key} is {value}; it must be {min}-{max}"))
    }
}

/// `file:line: message`, with what the line sets; not to what, which may be a secret.
fn located(name: &str, text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', ": ");
    match error.span() {
        Some(span) => {
            let line_no = text[..span.start.min(text.len())].matches('\n').count() + 1;
            let line = text.lines().nth(line_no - 1).unwrap_or_default();
            let line = line.split('=').next().unwrap_or_default().trim();
            format!(
                "{name}:{line_no}: {message} (in {line:?}); config/stampede.toml lists every key"
            )
        }
        None => format!("{name}: {message}; config/stampede.toml lists every key"),
    }
}

/// Where a value stands that [`Config::check`] did not take: its message begins with the key.
fn placed(name: &str, text: &str, environment: &[(String, String)], why: &str) -> String {
    let path = why.split([' ', ':']).next().unwrap_or_default();
    let is_set_by = |variable: &str| {
        let key = match short_form(variable) {
            Some((section, key)) => format!("{section}.{key}"),
            None => variable[ENVIRONMENT_PREFIX.len()..]
                .to_ascii_lowercase()
                .replacen('_', ".", 1),
        };
        key == path
    };
    if let Some((variable, _)) = environment.iter().find(|(variable, _)| is_set_by(variable)) {
        return format!("environment variable {variable}: {why}");
    }
    match line_of(text, path) {
        Some(line_no) => format!("{name}:{line_no}: {why}"),
        None => why.to_owned(),
    }
}

/// The line of `section.key` or `section.key[index].key`, or of what holds it where it is not written down.
fn line_of(text: &str, path: &str) -> Option<usize> {
    let file = toml::de::DeTable::parse(text).ok()?;
    let mut table = file.get_ref();
    let mut found = None;
    for part in path.split('.') {
        let (key, index) = part.split_once('[').unwrap_or((part, ""));
        let Some((place, value)) = table.iter().find(|(name, _)| name.get_ref() == key) else {
            break;
        };
        found = Some(place.span().start);
        let mut value = value;
        if let Ok(index) = index.trim_end_matches(']').parse::<usize>() {
            match value
                .get_ref()
                .as_array()
                .and_then(|items| items.get(index))
            {
                Some(item) => value = item,
                None => break,
            }
            found = Some(value.span().start);
        }
        match value.get_ref().as_table() {
            Some(inner) => table = inner,
            None => break,
        }
    }
    found.map(|start| text[..start.min(text.len())].matches('\n').count() + 1)
}

/// Variables that mean something else than a key of the configuration.
const OTHER_VARIABLES: [&str; 9] = [
    "STAMPEDE_CONFIG",
    "STAMPEDE_ADMIN_KEY",
    "STAMPEDE_DATA",
    "STAMPEDE_REDIS",
    "STAMPEDE_NODE",
    "STAMPEDE_PUBLIC",
    "STAMPEDE_ADMIN",
    "STAMPEDE_FAULT",
    "STAMPEDE_DATABASE",
];

/// Variables with a name of their own.
fn short_form(variable: &str) -> Option<(&'static str, &'static str)> {
    match variable {
        "STAMPEDE_DATA" => Some(("store", "data")),
        "STAMPEDE_REDIS" => Some(("store", "redis")),
        "STAMPEDE_NODE" => Some(("store", "node")),
        "STAMPEDE_DATABASE" => Some(("campaigns", "database")),
        "STAMPEDE_PUBLIC" => Some(("public", "address")),
        "STAMPEDE_ADMIN" => Some(("admin", "address")),
        _ => None,
    }
}

/// Lays one variable over the file: `STAMPEDE_PUBLIC_THREADS=2` is `[public] threads = 2`.
fn overlay(table: &mut toml::Table, variable: &str, value: &str) -> Result<(), String> {
    if variable == "STAMPEDE_WEBHOOKS" {
        let parsed: toml::Table = toml::from_str(&format!("webhooks = {value}")).map_err(|_| {
            format!("environment variable {variable} is no TOML list of tables: [{{name = \"shop\", url = \"https://...\", secret = \"...\"}}]")
        })?;
        table.extend(parsed);
        return Ok(());
    }
    let short = short_form(variable);
    let is_other = OTHER_VARIABLES.contains(&variable) || variable.starts_with("STAMPEDE_FAULT_");
    if short.is_none() && is_other {
        return Ok(());
    }
    let defaults = toml::Table::try_from(Config::default()).map_err(|error| error.to_string())?;
    let name = variable[ENVIRONMENT_PREFIX.len()..].to_ascii_lowercase();
    let (section, key) = short
        .or_else(|| name.split_once('_'))
        .unwrap_or((name.as_str(), ""));
    let unknown = || format!("environment variable {variable} names no key of the configuration");
    let example = defaults
        .get(section)
        .and_then(|s| s.get(key))
        .ok_or_else(unknown)?;
    let value = if example.is_str() {
        toml::Value::String(value.to_owned())
    } else {
        // Numbers, booleans and lists are written as in the file.
        let parsed: toml::Table = toml::from_str(&format!("value = {value}"))
            .map_err(|_| format!("environment variable {variable}={value:?} is no TOML value; a list is written as [\"https://shop.example\"]"))?;
        parsed.get("value").cloned().ok_or_else(unknown)?
    };
    let section = table
        .entry(section.to_owned())
        .or_insert_with(|| toml::Value::Table(toml::Table::new()));
    section
        .as_table_mut()
        .ok_or_else(unknown)?
        .insert(key.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.toml");
        std::fs::write(&file, text).unwrap();
        let environment: Vec<_> = environment
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        Config::load(Some(&file), &environment)
    }

    #[test]
    fn the_shipped_file_holds_every_key_at_its_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/stampede.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(Config::load(Some(&path), &[]).unwrap(), Config::default());
        let shipped: toml::Table = toml::from_str(&text).unwrap();
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        for (section, keys) in &defaults {
            // Lists that are empty by default are told of in comments.
            for key in keys.as_table().into_iter().flat_map(toml::Table::keys) {
                assert!(
                    shipped.get(section).and_then(|s| s.get(key)).is_some(),
                    "[{section}] {key} is not in config/stampede.toml"
                );
            }
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line_and_what_would_be_taken() {
        for (text, told) in [
            ("[public]\nadress = \"x\"", ":2: unknown field `adress`"),
            ("[public]\nthreads = -1", ":2:"),
            (
                "[public]\naddress = \"nowhere\"",
                "public.address \"nowhere\" is not an address",
            ),
            ("[public\n", ":1:"),
            (
                "[engine]\nrequest_deadline_ms = 1",
                "engine.request_deadline_ms is 1; it must be 50-60000",
            ),
            (
                "[public]\nstreams_max = 100\nconnections_max = 50",
                "public.streams_max is 100",
            ),
            (
                "[[keys.admin]]\nname = \"a\"\nroles = [\"viewer\"]\nkey = \"short\"",
                "at least 16",
            ),
            (
                "[[keys.buyer_jwt]]\nalgorithm = \"RS256\"",
                "public_key_pem is missing",
            ),
            (
                "[[keys.buyer_jwt]]\nalgorithm = \"none\"",
                "unknown variant `none`",
            ),
            ("[public]\nstock_buckets = [10, 1]", "must ascend"),
            ("[log]\nlevel = \"loud\"", "is not a level"),
            (
                "[public]\naddress = \"127.0.0.1:7000\"\n[admin]\naddress = \"127.0.0.1:7000\"",
                "give them two ports",
            ),
            (
                "[[keys.storefront]]\nname = \"s\"\nkey = \"0123456789abcdef\"\n[[keys.admin]]\nname = \"a\"\nroles = [\"viewer\"]\nkey = \"0123456789abcdef\"",
                "one key stands in two places",
            ),
            ("[store]\nredis = \"http://x\"", "not a Redis URL"),
            ("[store]\nredis = \"redis+sentinel://a/b\"", "not built yet"),
            (
                "[store]\nredis_durability_min = \"best\"",
                "unknown variant `best`",
            ),
            ("[store]\nnode = \"a b\"", "store.node"),
            (
                "[campaigns]\ndatabase = \"mysql://u:0123@h/d\"",
                ":2: campaigns.database is neither sqlite:FILE nor postgres://",
            ),
            (
                "[campaigns]\nzone = \"Mars\"",
                ":2: campaigns.zone \"Mars\"",
            ),
            (
                "[campaigns]\nthreads = 0",
                ":2: campaigns.threads is 0; it must be 1-64",
            ),
            (
                "[campaigns.notifier]\nurl = \"https://x.example\"\nsecret = \"short\"",
                ":3: campaigns.notifier.secret must be",
            ),
            (
                "[keys]\ncampaign_key = \"0123\"",
                ":2: keys.campaign_key must be 64",
            ),
            (
                "[[webhooks]]\nname = \"a\"\nurl = \"https://x.example\"\nsecret = \"0123456789abcdef\"\n[[webhooks]]\nname = \"a\"\nurl = \"https://y.example\"\nsecret = \"0123456789abcdef\"",
                ":6: webhooks[1].name \"a\" is there twice",
            ),
            (
                "[[webhooks]]\nname = \"a\"\nurl = \"http://x.example\"\nsecret = \"0123456789abcdef\"",
                ":3: webhooks[0].url begins with http://",
            ),
            (
                "[[webhooks]]\nname = \"a\"\nurl = \"https://169.254.169.254\"\nsecret = \"0123456789abcdef\"",
                "webhooks[0].url names 169.254.169.254",
            ),
            (
                "[[webhooks]]\nname = \"a\"\nurl = \"https://x.example\"\nsecret = \"short\"",
                ":4: webhooks[0].secret must be",
            ),
            (
                "[webhook]\nconnect_timeout_ms = 20000",
                "webhook.connect_timeout_ms is 20000; it must be 100-10000",
            ),
            (
                "[store]\nredis = \"redis://h\"\nredis_timeout_ms = 5000",
                "must not be more than engine.request_deadline_ms",
            ),
        ] {
            let error = load(text, &[]).expect_err(text);
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_a_secret() {
        for text in [
            "[[webhooks]]\nname = \"a\"\nurl = \"https://x.example\"\nsecrets = \"0123456789abcdef\"",
            "[[webhooks]]\nname = \"a\"\nurl = \"https://x.example\"\nsecret = \"0123456789abcdef\nallow_private = true",
            "webhooks = [{name = \"a\", url = \"https://x.example\", secret = \"0123456789abcdef\", x = 1}]",
        ] {
            let error = load(text, &[]).unwrap_err().to_string();
            assert!(!error.contains("0123"), "{error}");
        }
        let mut config = load(
            "[[webhooks]]\nname = \"a\"\nurl = \"https://x.example/#0123\"\nsecret = \"0123456789abcdef\"",
            &[],
        )
        .unwrap();
        config.hide_keys();
        let shown = toml::to_string_pretty(&config).unwrap();
        assert!(!shown.contains("0123"), "{shown}");
    }

    #[test]
    fn the_campaigns_are_shown_without_their_secrets() {
        let key = "0123".repeat(16);
        let mut config = load(
            &format!("[campaigns.notifier]\nurl = \"https://x.example/?t=0123\"\nsecret = \"0123456789abcdef\"\n[keys]\ncampaign_key = \"{key}\""),
            &[("STAMPEDE_DATABASE", "postgres://u:0123@h/d")],
        )
        .unwrap();
        config.hide_keys();
        let shown = toml::to_string_pretty(&config).unwrap();
        assert!(!shown.contains("0123"), "{shown}");
        assert!(shown.contains("postgres://h/d"), "{shown}");
        let default = Config::default();
        assert_eq!(
            default.database_url().unwrap().to_string(),
            "sqlite:./stampede-data/campaigns.db"
        );
    }

    #[test]
    fn webhooks_are_shown_without_their_secrets() {
        let mut config = load(
            "[[webhooks]]\nname = \"a\"\nurl = \"https://x.example/?t=0123\"\nsecret = \"0123456789abcdef\"\nsecret_previous = \"0123fedcba987654\"",
            &[],
        )
        .unwrap();
        assert_eq!(
            config.targets().unwrap()[0].url,
            "https://x.example/?t=0123"
        );
        config.hide_keys();
        let shown = toml::to_string_pretty(&config).unwrap();
        assert!(!shown.contains("0123"), "{shown}");
        assert!(shown.contains("https://x.example/?<hidden>"), "{shown}");
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let config = load(
            "[public]\nthreads = 1\naddress = \"127.0.0.1:1\"",
            &[
                ("STAMPEDE_PUBLIC_THREADS", "3"),
                ("STAMPEDE_PUBLIC", "127.0.0.1:2"),
                ("STAMPEDE_ENGINE_RETIRE_AFTER_S", "7"),
                ("STAMPEDE_PUBLIC_CORS_ORIGINS", "[\"https://shop.example\"]"),
            ],
        )
        .unwrap();
        assert_eq!(
            (config.public.threads, config.engine.retire_after_s),
            (3, 7)
        );
        assert_eq!(config.public.address, "127.0.0.1:2");
        assert_eq!(config.public.cors_origins, ["https://shop.example"]);
        for (variable, value) in [
            ("STAMPEDE_PUBLIC_THREAD", "3"),
            ("STAMPEDE_PUBLIC_THREADS", "many"),
            ("STAMPEDE_X", "1"),
        ] {
            let error = load("", &[(variable, value)]).expect_err(variable);
            assert!(error.contains(variable), "{error}");
        }
    }
}
