//! Heartbeats: nearly everything a conductor does is triggered by one. Source: agent protocol page, 4.
//!
//! Time is monotonic, so that a clock step can not hold heartbeats back. A forced heartbeat is asked for when an async
//! command ends; the wish is cleared *before* sending and set again on failure, so that one that arrives in flight counts.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use events::{EventKind, Events};
use reqwest::Method;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use wire::{Heartbeat, Microversion, Secret};

use super::client::Client;
use super::error::Error;
use super::random::between;
use super::waiting::Waiting;

/// Forced heartbeats keep this distance from the attempt before.
const SHORTEST_DISTANCE: Duration = Duration::from_secs(5);
/// Longest that a server may ask to be left alone: a conductor gives a node up that is silent for minutes.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);
/// So many conflicts in a row are no news: the node is locked while the conductor works on it.
const USUAL_CONFLICTS: u32 = 3;

/// Asks for a heartbeat soon. Requests coalesce.
#[derive(Clone, Default)]
pub struct Trigger(Arc<Wish>);

#[derive(Default)]
struct Wish {
    wanted: AtomicBool,
    changed: Notify,
}

impl Trigger {
    /// Asks for a heartbeat soon.
    pub fn force(&self) {
        self.0.wanted.store(true, Ordering::Release);
        self.0.changed.notify_one();
    }

    fn is_wanted(&self) -> bool {
        self.0.wanted.load(Ordering::Acquire)
    }
}

/// Sends one heartbeat; a fake in tests.
pub trait Sender: Send + Sync {
    /// Sends it; an error is anything but the conductor's 202.
    fn send(&self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// What every heartbeat of this boot says: constant, or the conductor refuses it.
pub struct Heartbeater {
    /// The conductor.
    pub client: Arc<Client>,
    /// The node's id.
    pub node_uuid: String,
    /// `https://host:port`.
    pub callback_url: String,
    /// The token of this boot.
    pub token: Option<Secret>,
    /// The certificate of this boot.
    pub certificate: Option<String>,
}

impl Heartbeater {
    /// The body, as far as the conductor's version knows its keys: an unknown one is refused.
    fn body(&self, version: Microversion) -> Heartbeat {
        let from = |least: Microversion| version >= least;
        Heartbeat {
            callback_url: self.callback_url.clone(),
            agent_token: self.token.clone().filter(|_| from(Microversion::AGENT_TOKEN)),
            agent_version: from(Microversion::AGENT_VERSION).then(|| wire::AGENT_PROTOCOL_VERSION.into()),
            agent_verify_ca: self.certificate.clone().filter(|_| from(Microversion::AGENT_VERIFY_CA)),
        }
    }
}

impl Sender for Heartbeater {
    async fn send(&self) -> Result<(), Error> {
        let version = self.client.version().await?.min(Microversion::AGENT_VERIFY_CA);
        let path = format!("/v1/heartbeat/{}", self.node_uuid);
        let body = serde_json::to_vec(&self.body(version)).map_err(|source| Error::Content {
            url: path.clone(),
            expected: "JSON",
            start: String::new(),
            source,
        })?;
        let reply = self.client.call(Method::POST, &path, Some(version), Some(&body)).await?;
        match reply.status {
            202 => return Ok(()),
            // Not acceptable: another conductor, of another version, has taken over.
            406 => self.client.forget_version(),
            _ => {}
        }
        Err(reply.into_error())
    }
}

/// Sends heartbeats until `stop` becomes true. Never gives up: a conductor may come back. Meanwhile the console says what is
/// waited for.
pub async fn run(
    sender: &impl Sender,
    heartbeat_timeout: Duration,
    trigger: &Trigger,
    events: &Events,
    mut stop: watch::Receiver<bool>,
) {
    let mut waiting = Waiting::default();
    let mut conflicts = 0_u32;
    let mut due = Instant::now();
    let mut earliest_forced = due;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep_until(due) => {}
            () = forced(trigger, earliest_forced) => {}
        }
        let wish = trigger.0.wanted.swap(false, Ordering::AcqRel);
        earliest_forced = Instant::now() + SHORTEST_DISTANCE;
        let pause = match sender.send().await {
            Ok(()) => {
                tracing::debug!(forced = wish, "heartbeat");
                conflicts = 0;
                if let Some(message) = waiting.succeeded() {
                    events.emit(EventKind::Notice { message });
                }
                between(heartbeat_timeout.mul_f64(0.3), heartbeat_timeout.mul_f64(0.6))
            }
            Err(error) => {
                if wish {
                    trigger.0.wanted.store(true, Ordering::Release);
                }
                let reason = error.told();
                tracing::debug!(reason, "heartbeat failed; trying again");
                conflicts = if error.status() == Some(409) { conflicts.saturating_add(1) } else { 0 };
                if (1..=USUAL_CONFLICTS).contains(&conflicts) {
                    tracing::warn!(reason, "the conductor is busy with this node");
                } else if let Some(message) = waiting.failed(&format!("heartbeat: {reason}")) {
                    events.emit(EventKind::Notice { message });
                }
                let asked = error.retry_after().unwrap_or_default().min(LONGEST_SILENCE);
                between(Duration::from_secs(5), Duration::from_secs(10))
                    .max(asked.min(heartbeat_timeout.mul_f64(0.3)))
            }
        };
        due = Instant::now() + pause;
    }
}

/// Ends once a heartbeat is wished for and the one before lies far enough back.
async fn forced(trigger: &Trigger, earliest: Instant) {
    while !trigger.is_wanted() {
        trigger.0.changed.notified().await;
    }
    sleep_until(earliest).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::time::timeout;

    /// Writes down when it sent, in seconds since the start, and answers from a list; then with success.
    struct Scripted {
        start: Instant,
        sent: Mutex<Vec<f64>>,
        failures: Mutex<Vec<bool>>,
        duration: Duration,
        trigger: Trigger,
        force_in_flight: AtomicBool,
        events: Events,
        /// Fails with this instead.
        status: Option<(u16, Option<Duration>)>,
    }

    impl Scripted {
        fn new(failures: &[bool], trigger: &Trigger) -> Self {
            Self {
                start: Instant::now(),
                sent: Mutex::default(),
                failures: Mutex::new(failures.to_vec()),
                duration: Duration::ZERO,
                trigger: trigger.clone(),
                force_in_flight: AtomicBool::new(false),
                events: Events::default(),
                status: None,
            }
        }

        fn told(&self) -> Vec<String> {
            let said = |event: &events::Event| match &event.kind {
                EventKind::Notice { message } => message.clone(),
                other => panic!("{other:?}"),
            };
            self.events.after(0, 1000).events.iter().map(said).collect()
        }

        fn sent(&self) -> Vec<f64> {
            self.sent.lock().unwrap().clone()
        }
    }

    impl Sender for Scripted {
        async fn send(&self) -> Result<(), Error> {
            self.sent.lock().unwrap().push(self.start.elapsed().as_secs_f64());
            tokio::time::sleep(self.duration).await;
            if self.force_in_flight.swap(false, Ordering::SeqCst) {
                self.trigger.force();
            }
            let mut failures = self.failures.lock().unwrap();
            match !failures.is_empty() && failures.remove(0) {
                true => match self.status {
                    None => Err(Error::NoUrl),
                    Some((status, retry_after)) => {
                        let (url, text) = ("http://c".into(), "scripted".into());
                        Err(Error::Status { url, status, text, retry_after })
                    }
                },
                false => Ok(()),
            }
        }
    }

    /// Runs the loop for some (simulated) time.
    async fn run_for(sender: &Scripted, trigger: &Trigger, seconds: u64) {
        let (_stop, stopped) = watch::channel(false);
        let run = run(sender, Duration::from_secs(300), trigger, &sender.events, stopped);
        let _ = timeout(Duration::from_secs(seconds), run).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_goes_at_once_and_the_next_within_a_third_to_two_thirds_of_the_timeout() {
        let trigger = Trigger::default();
        let sender = Scripted::new(&[], &trigger);
        run_for(&sender, &trigger, 2000).await;
        let sent = sender.sent();
        assert!(sent[0] < 0.1, "{sent:?}");
        for pair in sent.windows(2) {
            assert!((89.9..=180.1).contains(&(pair[1] - pair[0])), "{sent:?}");
        }
        assert!(sent.len() > 10);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_the_next_comes_in_five_to_ten_seconds() {
        let trigger = Trigger::default();
        let sender = Scripted::new(&[true, true, true], &trigger);
        run_for(&sender, &trigger, 60).await;
        let sent = sender.sent();
        assert_eq!(sent.len(), 4, "{sent:?}");
        for pair in sent.windows(2) {
            assert!((4.9..=10.1).contains(&(pair[1] - pair[0])), "{sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_without_a_conductor_is_told_once_a_minute_and_then_it_goes_on() {
        let trigger = Trigger::default();
        let sender = Scripted::new(&[true; 480], &trigger); // 5 to 10 seconds apart: an hour
        run_for(&sender, &trigger, 6000).await;
        let (sent, told) = (sender.sent(), sender.told());
        assert!(sent.windows(2).take(479).all(|pair| pair[1] - pair[0] <= 10.2));
        let silence = sent[480] - sent[0];
        assert!((2400.0..=4800.0).contains(&silence), "{silence}");
        let minutes = silence / 60.0;
        #[allow(clippy::cast_precision_loss)]
        let lines = told.len() as f64;
        assert!(lines <= minutes + 3.0 && lines >= minutes * 0.7, "{lines} lines in {minutes} minutes");
        assert!(told[0].starts_with("waiting for the conductor: heartbeat: no API URL"), "{}", told[0]);
        assert!(told.last().unwrap().starts_with("the conductor answers again, after"), "{told:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_asks_for_patience_gets_some_and_a_busy_one_makes_no_noise() {
        let trigger = Trigger::default();
        let mut sender = Scripted::new(&[true, true], &trigger);
        sender.status = Some((503, Some(Duration::from_secs(40))));
        run_for(&sender, &trigger, 85).await;
        let sent = sender.sent();
        assert_eq!(sent.iter().map(|at| at.round()).collect::<Vec<_>>(), [0.0, 40.0, 80.0]);
        let mut sender = Scripted::new(&[true], &trigger);
        sender.status = Some((503, Some(Duration::from_secs(86_400))));
        run_for(&sender, &trigger, 100).await;
        assert_eq!(sender.sent().len(), 2, "a minute is the most");

        let mut sender = Scripted::new(&[true; 3], &trigger);
        sender.status = Some((409, None));
        run_for(&sender, &trigger, 60).await;
        assert!(sender.told().is_empty(), "{:?}", sender.told());
        let mut sender = Scripted::new(&[true; 5], &trigger);
        sender.status = Some((409, None));
        run_for(&sender, &trigger, 60).await;
        assert!(sender.told()[0].contains("409"), "{:?}", sender.told());
    }

    #[tokio::test(start_paused = true)]
    async fn forced_heartbeats_coalesce_and_keep_their_distance() {
        let trigger = Trigger::default();
        let sender = Scripted::new(&[], &trigger);
        let force = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            trigger.force();
            trigger.force();
            tokio::time::sleep(Duration::from_secs(19)).await;
            trigger.force();
            std::future::pending::<()>().await;
        };
        tokio::select! { () = run_for(&sender, &trigger, 60) => {}, () = force => {} }
        let sent: Vec<_> = sender.sent().iter().map(|at| at.round()).collect();
        assert_eq!(sent, [0.0, 5.0, 20.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_that_arrives_in_flight_or_meets_a_failure_is_not_lost() {
        let trigger = Trigger::default();
        let mut sender = Scripted::new(&[], &trigger);
        sender.duration = Duration::from_secs(2);
        sender.force_in_flight.store(true, Ordering::SeqCst);
        run_for(&sender, &trigger, 60).await;
        assert_eq!(sender.sent().iter().map(|at| at.round()).collect::<Vec<_>>(), [0.0, 5.0]);

        trigger.force();
        let sender = Scripted::new(&[true], &trigger);
        run_for(&sender, &trigger, 60).await;
        assert_eq!(sender.sent().iter().map(|at| at.round()).collect::<Vec<_>>(), [0.0, 5.0]);
        assert!(!trigger.is_wanted());
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_the_loop() {
        let trigger = Trigger::default();
        let sender = Scripted::new(&[], &trigger);
        let (stop, stopped) = watch::channel(false);
        let stopping = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            stop.send_replace(true);
        };
        let run = run(&sender, Duration::from_secs(300), &trigger, &sender.events, stopped);
        timeout(Duration::from_secs(4), async { tokio::join!(run, stopping) }).await.unwrap();
    }

    #[test]
    fn bodies_hold_only_the_keys_that_the_version_knows() {
        crate::install_crypto_provider();
        let settings = super::super::ClientSettings { urls: vec![], version: None, request_id: None };
        let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let heartbeater = Heartbeater {
            client: Arc::new(Client::with(http, settings)),
            node_uuid: "u".into(),
            callback_url: "https://192.0.2.7:9999".into(),
            token: Some(Secret::new("t")),
            certificate: Some("PEM".into()),
        };
        let golden = |minor| serde_json::to_string(&heartbeater.body(Microversion::new(1, minor))).unwrap();
        assert_eq!(golden(31), r#"{"callback_url":"https://192.0.2.7:9999"}"#);
        assert_eq!(golden(36), r#"{"callback_url":"https://192.0.2.7:9999","agent_version":"13.0.0"}"#);
        assert_eq!(
            golden(68),
            r#"{"callback_url":"https://192.0.2.7:9999","agent_token":"t","agent_version":"13.0.0","agent_verify_ca":"PEM"}"#
        );
    }
}
