//! The rule by which winners of a giveaway follow from tickets and draws, written from the published file alone: the whole
//! order in memory, nothing of what draws.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use side_campaign::draws::file::{ProofDraw, ProofFile};
use side_campaign::draws::{Mismatch, VerifyKind};

use super::settle::DENIED_MARK;
use super::{GiveawayRules, LIST, PrizeDraw};

/// The rule of the kind `giveaway`.
#[derive(Debug, Clone, Copy, Default)]
pub struct GiveawayProof;

/// What a giveaway concludes from a draw.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detail {
    version: i64,
    position: i64,
    reward: String,
    concluded: Concluded,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Concluded {
    Winner,
    PassedOver,
}

/// A winner as it follows from the draws.
#[derive(Debug, PartialEq, Eq)]
struct Expected<'a> {
    list: &'a str,
    rank: i64,
    participant: &'a str,
    reward: &'a str,
    sequence: i64,
}

impl VerifyKind for GiveawayProof {
    fn kind(&self) -> &'static str {
        "giveaway"
    }

    fn verify(&self, file: &ProofFile) -> Vec<Mismatch> {
        let mut found = Vec::new();
        let Some(rules) = rules(file, &mut found) else {
            return found;
        };
        check_tickets(file, &mut found);
        let expected = expected(file, &rules, &mut found);
        check_winners(file, &expected, &mut found);
        found
    }
}

/// The rules in force at the end: the last version.
fn rules(file: &ProofFile, found: &mut Vec<Mismatch>) -> Option<GiveawayRules> {
    let version = file.versions.last()?;
    match GiveawayRules::parse(&version.definition["rules"]) {
        Ok(rules) => Some(rules),
        Err(error) => {
            let place = format!("version {}", version.version);
            found.push(Mismatch::new(place, format!("its rules: {error}")));
            None
        }
    }
}

/// Who stands on a ticket, without the mark that he cannot win.
fn participant(ticket: &str) -> &str {
    ticket.strip_suffix(DENIED_MARK).unwrap_or(ticket)
}

fn check_tickets(file: &ProofFile, found: &mut Vec<Mismatch>) {
    if !file.roots.iter().any(|root| root.list == LIST) {
        found.push(Mismatch::new(format!("root {LIST}"), "is missing"));
    }
    let mut seen = BTreeSet::new();
    let mut last = None;
    for ticket in &file.tickets {
        let place = || format!("ticket {}/{}", ticket.list, ticket.position);
        if ticket.list != LIST {
            found.push(Mismatch::new(
                place(),
                "is of a list that giveaways do not have",
            ));
            continue;
        }
        let participant = participant(&ticket.ticket);
        if !seen.insert(participant) {
            found.push(Mismatch::new(place(), "is there twice"));
        }
        let is = Some((ticket.at_ms, participant));
        if is <= last {
            let what = "is not in the order of (time of joining, ticket)";
            found.push(Mismatch::new(place(), what));
        }
        last = is;
    }
}

/// Goes through the streams in the order of the rules, and finds who wins.
fn expected<'a>(
    file: &'a ProofFile,
    rules: &'a GiveawayRules,
    found: &mut Vec<Mismatch>,
) -> Vec<Expected<'a>> {
    let mut of_stream: BTreeMap<&str, Vec<&ProofDraw>> = BTreeMap::new();
    for draw in &file.draws {
        of_stream.entry(&draw.stream).or_default().push(draw);
    }
    let tickets: Vec<&str> = file
        .tickets
        .iter()
        .map(|ticket| ticket.ticket.as_str())
        .collect();
    let version = file.versions.last().map_or(0, |version| version.version);
    let mut order: Vec<usize> = (0..tickets.len()).collect();
    let mut drawn = 0;
    let mut winners = Vec::new();
    for stream in &rules.draws {
        let mut rank = 0;
        for draw in of_stream.remove(stream.stream.as_str()).unwrap_or_default() {
            let place = format!("draw {}/{}", draw.stream, draw.sequence);
            let mut wrong = |what: String| found.push(Mismatch::new(&place, what));
            if rank >= stream.winners {
                wrong("all winners of this stream had been found".to_owned());
                continue;
            }
            let bounds = (usize::try_from(draw.low), usize::try_from(draw.high));
            let value = usize::try_from(draw.value).unwrap_or(usize::MAX);
            let is_possible = (drawn..order.len()).contains(&value);
            if bounds != (Ok(drawn), Ok(order.len().saturating_sub(1))) || !is_possible {
                wrong(format!("must be among {drawn} to {}", order.len()));
                continue;
            }
            order.swap(drawn, value);
            let position = order[drawn];
            drawn += 1;
            if tickets[position] != draw.subject {
                wrong(format!("the ticket is that of position {position}"));
            }
            let ticket = tickets[position];
            let is_marked = participant(ticket) != ticket;
            let is_winner = is_winner(draw, stream, (version, position), &mut wrong);
            if is_winner == is_marked {
                wrong(if is_marked {
                    "the list says that this ticket cannot win".to_owned()
                } else {
                    "passed over, and the list does not say that this ticket cannot win".to_owned()
                });
            }
            if !is_marked {
                rank += 1;
                winners.push(Expected {
                    list: &stream.stream,
                    rank,
                    participant: ticket,
                    reward: &stream.reward,
                    sequence: draw.sequence,
                });
            }
        }
        if rank < stream.winners && drawn < tickets.len() {
            let place = format!("draws {}", stream.stream);
            let what = format!(
                "{rank} of {} winners, and tickets were left",
                stream.winners
            );
            found.push(Mismatch::new(place, what));
        }
    }
    for stream in of_stream.keys() {
        let place = format!("draws {stream}");
        found.push(Mismatch::new(place, "is no stream of the rules"));
    }
    winners
}

/// Whether a draw was concluded to be a winner's; tells what is wrong with how it was concluded.
fn is_winner(
    draw: &ProofDraw,
    stream: &PrizeDraw,
    (version, position): (i64, usize),
    wrong: &mut impl FnMut(String),
) -> bool {
    let detail = match serde_json::from_value::<Detail>(draw.detail.clone()) {
        Ok(detail) => detail,
        Err(error) => {
            wrong(format!("detail: {error}"));
            return false;
        }
    };
    if detail.version != version {
        wrong(format!("version {version} was in force"));
    }
    if usize::try_from(detail.position) != Ok(position) {
        wrong(format!("the position is {position}"));
    }
    if detail.reward != stream.reward {
        wrong(format!("the reward of this stream is {:?}", stream.reward));
    }
    match (detail.concluded, detail.reason.as_deref()) {
        (Concluded::Winner, None) => true,
        (Concluded::PassedOver, Some("denied")) => false,
        (Concluded::Winner | Concluded::PassedOver, _) => {
            wrong("the reason is none that giveaways know".to_owned());
            false
        }
    }
}

fn check_winners(file: &ProofFile, expected: &[Expected<'_>], found: &mut Vec<Mismatch>) {
    let mut left: BTreeMap<(&str, i64), &Expected<'_>> = expected
        .iter()
        .map(|winner| ((winner.list, winner.rank), winner))
        .collect();
    for winner in &file.winners {
        let place = format!("winner {}/{}", winner.list, winner.rank);
        let Some(right) = left.remove(&(winner.list.as_str(), winner.rank)) else {
            found.push(Mismatch::new(place, "does not follow from any draw"));
            continue;
        };
        let is_right = winner.participant == right.participant
            && winner.reward == right.reward
            && winner.stream.as_deref() == Some(right.list)
            && winner.sequence == Some(right.sequence)
            && winner.score.is_none();
        if !is_right {
            let what = format!(
                "must be {} with {:?} by draw {}/{}",
                right.participant, right.reward, right.list, right.sequence
            );
            found.push(Mismatch::new(place, what));
        }
    }
    for (list, rank) in left.keys() {
        let place = format!("winner {list}/{rank}");
        found.push(Mismatch::new(place, "is missing"));
    }
}
