//! Which questions go to which server in which order, and when an answer is good enough.
//!
//! Both families are asked for at once. Each name (the given one, and the given one in each search domain) goes to each server
//! until one knows an address. A server that says that there is no such name is not the last word: on a machine with several
//! networks each has its own server, and only one of them may know the conductor.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{Answered, Error, Said};
use crate::exchange::exchange;
use crate::files::Settings;
use crate::message::{Answer, Family};
use crate::order;

/// How long the other family may take once one has given an address that this machine has a route to.
const GRACE: Duration = Duration::from_millis(500);
/// Most aliases that are asked for one after the other.
const MOST_ALIASES: usize = 8;

/// Asks for the addresses of a name, for `limit` at most.
pub(crate) async fn ask(
    settings: &Settings,
    name: &str,
    port: u16,
    limit: Duration,
) -> Result<Vec<IpAddr>, Error> {
    if settings.servers.is_empty() {
        return Err(Error::NoServer { name: name.to_owned() });
    }
    let deadline = Instant::now() + limit;
    let candidates = candidates(settings, name);
    let mut said: Vec<Said> = Vec::new();
    for attempt in 0..settings.attempts {
        // A server that says nothing to one name is not waited for again for the next one.
        let mut silent: Vec<SocketAddr> = Vec::new();
        for candidate in &candidates {
            for server in &settings.servers {
                let mut server = *server;
                server.set_port(port);
                // Only silence and failure are worth asking about again.
                let known = said.iter().position(|said| said.server == server && said.name == *candidate);
                let settled = known.and_then(|known| said.get(known)).is_some_and(is_settled);
                if silent.contains(&server) || (attempt > 0 && settled) {
                    continue;
                }
                let asked = timeout_at(deadline, both(server, candidate, settings.patience)).await;
                let answer = match asked {
                    Ok(Ok(found)) => return Ok(found),
                    Ok(Err(answer)) => answer,
                    Err(_) if said.is_empty() => {
                        return Err(Error::TimedOut { name: name.to_owned(), limit });
                    }
                    Err(_) => return Err(Error::NoAddress { name: name.to_owned(), said }),
                };
                tracing::debug!(%answer, "no address");
                if matches!((&answer.ipv4, &answer.ipv6), (Answered::Nothing(_), Answered::Nothing(_))) {
                    silent.push(server);
                }
                match known.and_then(|known| said.get_mut(known)) {
                    Some(known) => *known = answer,
                    None => said.push(answer),
                }
            }
        }
        if said.iter().all(is_settled) {
            break;
        }
    }
    Err(Error::NoAddress { name: name.to_owned(), said })
}

fn is_settled(said: &Said) -> bool {
    let settled = |answer: &Answered| match answer {
        Answered::NoData | Answered::NoSuchName | Answered::Code(_) => true,
        Answered::Nothing(_) | Answered::Broken(_) => false,
    };
    settled(&said.ipv4) && settled(&said.ipv6)
}

/// The names to ask for, in order. A dot at the end keeps search domains away.
fn candidates(settings: &Settings, name: &str) -> Vec<String> {
    if let Some(whole) = name.strip_suffix('.') {
        return vec![whole.to_owned()];
    }
    let in_domains = settings.search.iter().map(|domain| format!("{name}.{domain}"));
    let in_domains: Vec<_> = in_domains.filter(|name| name.len() <= crate::LONGEST_NAME).collect();
    let as_it_stands = vec![name.to_owned()];
    if name.matches('.').count() >= settings.dots {
        [as_it_stands, in_domains].concat()
    } else {
        [in_domains, as_it_stands].concat()
    }
}

/// Asks one server for both families at once.
async fn both(server: SocketAddr, name: &str, patience: Duration) -> Result<Vec<IpAddr>, Said> {
    let mut v4 = std::pin::pin!(follow(server, name, Family::V4, patience));
    let mut v6 = std::pin::pin!(follow(server, name, Family::V6, patience));
    // Whichever comes first; the other one gets a moment, or all its time where the first is of no use.
    let (ipv4, ipv6) = tokio::select! {
        first = &mut v4 => {
            let second = tokio::select! {
                second = &mut v6 => second,
                () = sleep(GRACE), if is_useful(&first) => Err(Answered::Nothing(GRACE)),
            };
            (first, second)
        }
        first = &mut v6 => {
            let second = tokio::select! {
                second = &mut v4 => second,
                () = sleep(GRACE), if is_useful(&first) => Err(Answered::Nothing(GRACE)),
            };
            (second, first)
        }
    };
    match (ipv4, ipv6) {
        (Err(ipv4), Err(ipv6)) => Err(Said { server, name: name.to_owned(), ipv4, ipv6 }),
        (ipv4, ipv6) => Ok([ipv4.unwrap_or_default(), ipv6.unwrap_or_default()].concat()),
    }
}

fn is_useful(answer: &Result<Vec<IpAddr>, Answered>) -> bool {
    answer.as_ref().is_ok_and(|addresses| addresses.iter().any(|address| order::has_route(*address)))
}

/// The addresses of one family; asks on for the name behind an alias where the server leaves that to us. Never empty.
async fn follow(
    server: SocketAddr,
    name: &str,
    family: Family,
    patience: Duration,
) -> Result<Vec<IpAddr>, Answered> {
    let mut name = name.to_owned();
    for _ in 0..MOST_ALIASES {
        match exchange(server, &name, family, patience).await? {
            Answer::Found { addresses, .. } if !addresses.is_empty() => return Ok(addresses),
            Answer::Found { alias: Some(alias), .. } => name = alias,
            Answer::Found { alias: None, .. } => return Err(Answered::NoData),
            Answer::NoSuchName => return Err(Answered::NoSuchName),
            Answer::Code(code) => return Err(Answered::Code(code)),
            Answer::Truncated => return Err(Answered::Broken("a truncated answer".into())),
        }
    }
    Err(Answered::Broken("aliases without an end".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_domains_come_first_for_short_names_and_last_for_long_ones() {
        let settings = Settings {
            servers: vec![],
            search: vec!["x".into(), "y.z".into()],
            dots: 1,
            patience: GRACE,
            attempts: 1,
        };
        assert_eq!(candidates(&settings, "box"), ["box.x", "box.y.z", "box"]);
        assert_eq!(candidates(&settings, "box.lab"), ["box.lab", "box.lab.x", "box.lab.y.z"]);
        assert_eq!(candidates(&settings, "box."), ["box"]);
    }
}
