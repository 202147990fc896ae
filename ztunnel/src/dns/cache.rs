//! Upstream answers, kept while their TTLs last, and for a while after that in case nobody answers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

/// Answers kept per pod.
const ENTRIES: usize = 256;

/// Answers are asked for again after so long, whatever their TTL.
const LONGEST: Duration = Duration::from_secs(300);

/// How long an answer may serve beyond its time.
const STALE: Duration = Duration::from_secs(3600);
/// For so long nobody is asked again who has just not answered (RFC 8767 §5).
const REST: Duration = Duration::from_secs(30);
/// The TTL it has then (RFC 8767 §4).
const STALE_TTL: u32 = 30;

#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
}

/// What makes two questions the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// Compares without letter case.
    name: Name,
    record_type: RecordType,
    class: DNSClass,
    dnssec_ok: bool,
    checking_disabled: bool,
    recursion_desired: bool,
}

#[derive(Debug)]
struct Entry {
    answer: Message,
    stored: Instant,
    expires: Instant,
    /// When it was last asked for in vain.
    failed: Option<Instant>,
}

// === impl Cache ===

impl Cache {
    /// The answer to a question, with TTLs counted down.
    pub fn answer(&self, question: &Message, now: Instant) -> Option<Message> {
        let entry = self.entries.get(&Key::of(question)?)?;
        if entry.expires <= now {
            return None;
        }
        let age = now.duration_since(entry.stored).as_secs();
        let age = u32::try_from(age).unwrap_or(u32::MAX);
        Some(entry.with_ttl(|ttl| ttl.saturating_sub(age)))
    }

    /// The answer to a question that was right a while ago; that there was no such thing, too:
    /// clients ask for several names and types, and give up where one of them fails.
    pub fn stale(&self, question: &Message, now: Instant) -> Option<Message> {
        let entry = self.entries.get(&Key::of(question)?)?;
        (entry.expires + STALE > now).then(|| entry.with_ttl(|_| STALE_TTL))
    }

    /// The same, where there is no use in asking again yet.
    pub fn rested(&self, question: &Message, now: Instant) -> Option<Message> {
        let failed = self.entries.get(&Key::of(question)?)?.failed?;
        (now < failed + REST).then(|| self.stale(question, now))?
    }

    /// Nobody has answered a question.
    pub fn failed(&mut self, question: &Message, now: Instant) {
        let entry = Key::of(question).and_then(|key| self.entries.get_mut(&key));
        if let Some(entry) = entry {
            entry.failed = Some(now);
        }
    }

    /// Keeps an answer, if it may be kept; what was right before it no longer is.
    pub fn store(&mut self, question: &Message, answer: &Message, now: Instant) {
        let Some(key) = Key::of(question) else {
            return;
        };
        let Some(lifetime) = lifetime(answer) else {
            if says_something(answer) {
                self.entries.remove(&key);
            }
            return;
        };
        if self.entries.len() >= ENTRIES && !self.entries.contains_key(&key) {
            self.make_room();
        }
        let entry = Entry {
            answer: answer.clone(),
            stored: now,
            expires: now + lifetime,
            failed: None,
        };
        self.entries.insert(key, entry);
    }

    /// What has been out of date the longest goes, else what will be first.
    fn make_room(&mut self) {
        let soonest = self.entries.iter().min_by_key(|(_, entry)| entry.expires);
        if let Some(key) = soonest.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }
}

// === impl Entry ===

impl Entry {
    fn with_ttl(&self, ttl: impl Fn(u32) -> u32) -> Message {
        let mut answer = self.answer.clone();
        let sections = [
            &mut answer.answers,
            &mut answer.authorities,
            &mut answer.additionals,
        ];
        for record in sections.into_iter().flatten() {
            record.ttl = ttl(record.ttl);
        }
        answer
    }
}

/// Whether an answer is about the name, and not about the server.
fn says_something(answer: &Message) -> bool {
    let code = answer.metadata.response_code;
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// How long an answer holds: its least TTL, or for "no such thing" what the zone's SOA says
/// (RFC 2308 §5). Errors, and denials without SOA, are not kept.
fn lifetime(answer: &Message) -> Option<Duration> {
    let seconds = match answer.metadata.response_code {
        ResponseCode::NoError if !answer.answers.is_empty() => {
            answer.answers.iter().map(|record| record.ttl).min()?
        }
        ResponseCode::NoError | ResponseCode::NXDomain => {
            answer
                .authorities
                .iter()
                .find_map(|record| match &record.data {
                    RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                    _ => None,
                })?
        }
        _ => return None,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds.into()).min(LONGEST))
}

// === impl Key ===

impl Key {
    fn of(question: &Message) -> Option<Self> {
        let [query] = &question.queries[..] else {
            return None;
        };
        Some(Self {
            name: query.name().clone(),
            record_type: query.query_type(),
            class: query.query_class(),
            dnssec_ok: question
                .edns
                .as_ref()
                .is_some_and(|edns| edns.flags().dnssec_ok),
            checking_disabled: question.metadata.checking_disabled,
            recursion_desired: question.metadata.recursion_desired,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_proto::op::Query;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, SOA};

    use super::*;

    fn question(name: &str) -> Message {
        let mut question = Message::query();
        let name = Name::from_str(name).expect("name");
        question.add_query(Query::query(name, RecordType::A));
        question
    }

    fn answer(question: &Message, ttls: &[u32]) -> Message {
        let mut answer = super::super::answer::respond(question, ResponseCode::NoError);
        for ttl in ttls {
            let data = RData::A(A::new(192, 0, 2, 1));
            let name = question.queries[0].name().clone();
            answer.add_answer(Record::from_rdata(name, *ttl, data));
        }
        answer
    }

    #[test]
    fn an_answer_lasts_as_long_as_its_shortest_record() {
        let mut cache = Cache::default();
        let asked = question("example.com.");
        let now = Instant::now();
        cache.store(&asked, &answer(&asked, &[60, 20]), now);
        let later = now + Duration::from_secs(15);
        let again = question("EXAMPLE.com.");
        let kept = cache.answer(&again, later).expect("kept");
        assert_eq!(kept.answers[0].ttl, 45);
        assert_eq!(kept.answers[1].ttl, 5);
        assert!(
            cache
                .answer(&again, now + Duration::from_secs(20))
                .is_none()
        );
        assert!(cache.answer(&question("example.org."), later).is_none());
    }

    #[test]
    fn denials_last_as_the_zone_says_and_errors_not_at_all() {
        let asked = question("none.example.com.");
        let now = Instant::now();
        let stored = |answer: &Message| {
            let mut cache = Cache::default();
            cache.store(&asked, answer, now);
            cache.entries.len()
        };
        let mut denied = answer(&asked, &[]);
        denied.metadata.response_code = ResponseCode::NXDomain;
        assert_eq!(stored(&denied), 0);
        let zone = Name::from_str("example.com.").expect("name");
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 1, 1, 1, 60);
        denied.add_authority(Record::from_rdata(zone, 300, RData::SOA(soa)));
        assert_eq!(stored(&denied), 1);
        assert_eq!(lifetime(&denied), Some(Duration::from_secs(60)));
        let mut failed = answer(&asked, &[60]);
        failed.metadata.response_code = ResponseCode::ServFail;
        assert_eq!(stored(&failed), 0);
        assert_eq!(stored(&answer(&asked, &[0])), 0);
    }

    #[test]
    fn an_answer_serves_for_a_while_beyond_its_time() {
        let mut cache = Cache::default();
        let asked = question("example.com.");
        let now = Instant::now();
        assert!(cache.stale(&asked, now).is_none());
        cache.store(&asked, &answer(&asked, &[60]), now);
        let expired = now + Duration::from_secs(60);
        assert!(cache.answer(&asked, expired).is_none());
        assert!(cache.rested(&asked, expired).is_none());
        cache.failed(&asked, expired);
        assert!(cache.rested(&asked, expired).is_some());
        assert!(cache.rested(&asked, expired + REST).is_none());
        let stale = cache.stale(&asked, expired).expect("kept");
        assert_eq!(stale.answers[0].ttl, STALE_TTL);
        assert!(cache.stale(&asked, expired + STALE).is_none());
    }

    #[test]
    fn what_an_answer_that_is_not_kept_replaces_serves_no_more() {
        let asked = question("example.com.");
        let now = Instant::now();
        for (newer, serves) in [(answer(&asked, &[0]), false), (failure(&asked), true)] {
            let mut cache = Cache::default();
            cache.store(&asked, &answer(&asked, &[60]), now);
            cache.store(&asked, &newer, now);
            assert_eq!(cache.stale(&asked, now).is_some(), serves);
        }
    }

    fn failure(asked: &Message) -> Message {
        let mut failure = answer(asked, &[]);
        failure.metadata.response_code = ResponseCode::ServFail;
        failure
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let mut cache = Cache::default();
        let now = Instant::now();
        for index in 0..2 * ENTRIES {
            let asked = question(&format!("n{index}.example.com."));
            cache.store(&asked, &answer(&asked, &[60]), now);
        }
        assert_eq!(cache.entries.len(), ENTRIES);
    }
}
