//! Rules of a giveaway: what they say, what is wrong with them, what they cost at most, when they are better.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use side_campaign::definition::Definition;
use side_campaign::kind::{Finding, WorstCase, WorstLine};
use side_campaign::reward::{RewardKind, RewardRule};

/// Most rewards for joining.
pub(super) const PER_PARTICIPANT_MAX: usize = 10;
/// Most streams.
pub(super) const DRAWS_MAX: usize = 20;
/// Most winners of all streams.
pub(super) const WINNERS_MAX: i64 = 10_000;

/// Rules as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiveawayRules {
    /// Given to each who joins, by their names in the definition.
    #[serde(default)]
    pub per_participant: Vec<String>,
    /// Drawn at the end, in this order.
    #[serde(default)]
    pub draws: Vec<PrizeDraw>,
}

/// A stream of prizes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrizeDraw {
    /// Its name: 1-64 characters of an id.
    pub stream: String,
    /// What each winner is given.
    pub reward: String,
    /// How many win; fewer where fewer join.
    pub winners: i64,
}

impl GiveawayRules {
    /// Reads them.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(rules: &Value) -> Result<Self, String> {
        serde_json::from_value(rules.clone()).map_err(|error| error.to_string())
    }
}

fn finding(code: &'static str, field: String, detail: impl Into<String>) -> Finding {
    Finding {
        code,
        field,
        detail: detail.into(),
    }
}

fn malformed(error: String) -> Vec<Finding> {
    vec![finding("malformed", "rules".to_owned(), error)]
}

/// All that is wrong; or the worst case.
pub(super) fn check(definition: &Definition) -> Result<WorstCase, Vec<Finding>> {
    let rules = GiveawayRules::parse(&definition.rules).map_err(malformed)?;
    let mut found = Vec::new();
    if rules.per_participant.is_empty() && rules.draws.is_empty() {
        let detail = "gives nothing: name a reward in per_participant or in draws";
        found.push(finding("empty", "rules".to_owned(), detail));
    }
    check_per_participant(definition, &rules, &mut found);
    check_draws(definition, &rules, &mut found);
    if !found.is_empty() {
        return Err(found);
    }
    worst_case(definition, &rules)
}

fn check_per_participant(definition: &Definition, rules: &GiveawayRules, found: &mut Vec<Finding>) {
    if rules.per_participant.len() > PER_PARTICIPANT_MAX {
        let detail = format!("at most {PER_PARTICIPANT_MAX} rewards for joining");
        let field = "rules.per_participant".to_owned();
        found.push(finding("out_of_range", field, detail));
    }
    let mut seen = BTreeSet::new();
    for (index, reward) in rules.per_participant.iter().enumerate() {
        let field = format!("rules.per_participant[{index}]");
        if rule(definition, reward).is_none() {
            found.push(unknown(field, reward));
        } else if !seen.insert(reward) {
            found.push(finding("duplicate", field, "is named twice"));
        }
    }
}

fn check_draws(definition: &Definition, rules: &GiveawayRules, found: &mut Vec<Finding>) {
    if rules.draws.len() > DRAWS_MAX {
        let detail = format!("at most {DRAWS_MAX} streams");
        found.push(finding("out_of_range", "rules.draws".to_owned(), detail));
    }
    let mut streams = BTreeSet::new();
    for (index, draw) in rules.draws.iter().enumerate() {
        let field = |name: &str| format!("rules.draws[{index}].{name}");
        if let Err(bad) = flash_types::BuyerId::parse(&draw.stream) {
            found.push(finding("malformed", field("stream"), format!("{bad}")));
        } else if !streams.insert(&draw.stream) {
            found.push(finding("duplicate", field("stream"), "is named twice"));
        }
        if !(1..=WINNERS_MAX).contains(&draw.winners) {
            let detail = format!("is not 1-{WINNERS_MAX}");
            found.push(finding("out_of_range", field("winners"), detail));
        }
        if rule(definition, &draw.reward).is_none() {
            found.push(unknown(field("reward"), &draw.reward));
        }
        if rules.per_participant.contains(&draw.reward) {
            let detail = "is given for joining as well, which may leave none for the winners: name another reward";
            found.push(finding("shared_reward", field("reward"), detail));
        }
    }
    check_counts(definition, rules, found);
}

/// There must be enough of everything that is drawn.
fn check_counts(definition: &Definition, rules: &GiveawayRules, found: &mut Vec<Finding>) {
    let winners = |draws: &[PrizeDraw], reward: Option<&str>| {
        let draws = draws
            .iter()
            .filter(|draw| reward.is_none_or(|reward| draw.reward == reward));
        draws.fold(0_i64, |sum, draw| sum.saturating_add(draw.winners))
    };
    if winners(&rules.draws, None) > WINNERS_MAX {
        let detail = format!("at most {WINNERS_MAX} winners of all streams");
        found.push(finding("out_of_range", "rules.draws".to_owned(), detail));
    }
    for (index, reward) in definition.rewards.iter().enumerate() {
        let drawn = winners(&rules.draws, Some(&reward.reward));
        if let Some(count_max) = reward.count_max().filter(|max| *max < drawn) {
            let (name, field) = match reward.what {
                RewardKind::Coupon { .. } => ("total", "total"),
                RewardKind::Gift { .. } => ("stock", "stock_units"),
            };
            let field = format!("rewards[{index}].{field}");
            let detail = format!("{drawn} are drawn, but its {name} is {count_max}");
            found.push(finding("too_few", field, detail));
        }
    }
}

fn rule<'a>(definition: &'a Definition, reward: &str) -> Option<&'a RewardRule> {
    definition.rewards.iter().find(|rule| rule.reward == reward)
}

fn unknown(field: String, reward: &str) -> Finding {
    let detail = format!("{reward:?} is none of the definition's rewards");
    finding("unknown_reward", field, detail)
}

fn worst_case(definition: &Definition, rules: &GiveawayRules) -> Result<WorstCase, Vec<Finding>> {
    let mut worst = WorstCase::default();
    let participants = definition.eligibility.participants_max;
    for name in &rules.per_participant {
        let Some(reward) = rule(definition, name) else {
            continue;
        };
        let what = format!("{} ({name}) to each participant", reward.title);
        let count = match (participants, reward.count_max()) {
            (Some(people), Some(count)) => people.min(count),
            (Some(count), None) | (None, Some(count)) => count,
            (None, None) => {
                worst.unbounded.push(what);
                continue;
            }
        };
        add(&mut worst, what, count, reward.cost_minor())?;
    }
    for draw in &rules.draws {
        let Some(reward) = rule(definition, &draw.reward) else {
            continue;
        };
        let what = format!(
            "{} ({}), drawn in {}",
            reward.title, draw.reward, draw.stream
        );
        let count = participants.map_or(draw.winners, |people| people.min(draw.winners));
        add(&mut worst, what, count, reward.cost_minor())?;
    }
    Ok(worst)
}

fn add(
    worst: &mut WorstCase,
    what: String,
    count: i64,
    each_minor: i64,
) -> Result<(), Vec<Finding>> {
    let line = count.checked_mul(each_minor);
    let sum = line.and_then(|line| worst.total_minor.checked_add(line));
    let (Some(line_minor), Some(sum_minor)) = (line, sum) else {
        let detail = format!("{what}: {count} of {each_minor} is more than can be counted");
        return Err(vec![finding("out_of_range", "rules".to_owned(), detail)]);
    };
    worst.total_minor = sum_minor;
    worst.lines.push(WorstLine {
        what,
        count,
        each_minor,
        total_minor: line_minor,
    });
    Ok(())
}

/// Better for the buyer: more rewards for joining, more winners in the last stream, further streams behind the others; nothing less.
pub(super) fn improves(from: &Value, to: &Value) -> Result<(), Vec<Finding>> {
    let from = GiveawayRules::parse(from).map_err(malformed)?;
    let to = GiveawayRules::parse(to).map_err(malformed)?;
    let mut found = Vec::new();
    for reward in &from.per_participant {
        if !to.per_participant.contains(reward) {
            let detail = format!("{reward:?} was promised to each who joins and must stay");
            let field = "rules.per_participant".to_owned();
            found.push(finding("worse", field, detail));
        }
    }
    for (index, was) in from.draws.iter().enumerate() {
        let field = |name: &str| format!("rules.draws[{index}].{name}");
        // Streams are drawn one after another without replacement: another order is another chance.
        let Some(is) = to.draws.get(index).filter(|is| is.stream == was.stream) else {
            let detail = format!("{:?} must stay in its place", was.stream);
            found.push(finding("worse", field("stream"), detail));
            continue;
        };
        if is.reward != was.reward {
            let detail = format!("must stay {:?}", was.reward);
            found.push(finding("worse", field("reward"), detail));
        }
        if is.winners < was.winners {
            let detail = format!("must not be less than {}", was.winners);
            found.push(finding("worse", field("winners"), detail));
        }
        // Who wins here cannot win in a stream behind it, which was promised to others.
        if is.winners > was.winners && index + 1 < from.draws.len() {
            let detail = format!(
                "must stay {}: more winners may be in the last stream only, or in one behind it",
                was.winners
            );
            found.push(finding("worse", field("winners"), detail));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}
