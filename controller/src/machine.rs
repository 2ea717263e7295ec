//! A node's life as one table: which verb leads from which state to which. Nothing here touches a machine or the store;
//! every change of a provision state in this program goes through [`next`]. Source of states and moves: Ironic
//! `common/states.py`, as far as Ferric implements them.

use wire::ProvisionState::{self as S, *};

/// What can happen to a node: the first seven are asked for over the API, the others happen by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Take it under control.
    Manage,
    /// Make it ready for deployments.
    Provide,
    /// Deploy (`active` on the wire).
    Deploy,
    /// Deploy again over what is there.
    Rebuild,
    /// Take it back (`deleted` on the wire).
    Delete,
    /// Run clean steps.
    Clean,
    /// Give up what is running.
    Abort,
    /// The work at hand ended well.
    Done,
    /// The work at hand failed.
    Fail,
    /// The controller now waits for the agent.
    Wait,
    /// The agent called, the controller goes on.
    Resume,
}

impl Verb {
    /// Every verb.
    #[cfg(test)]
    pub const ALL: [Self; 11] = [
        Self::Manage,
        Self::Provide,
        Self::Deploy,
        Self::Rebuild,
        Self::Delete,
        Self::Clean,
        Self::Abort,
        Self::Done,
        Self::Fail,
        Self::Wait,
        Self::Resume,
    ];

    /// The verb behind a `target` of `PUT /v1/nodes/{id}/states/provision`.
    pub fn from_target(target: &str) -> Option<Self> {
        Some(match target {
            "manage" => Self::Manage,
            "provide" => Self::Provide,
            "active" => Self::Deploy,
            "rebuild" => Self::Rebuild,
            "deleted" | "undeploy" => Self::Delete,
            "clean" => Self::Clean,
            "abort" => Self::Abort,
            _ => return None,
        })
    }

    /// The `target` as the API spells it; internal verbs have a word of their own.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manage => "manage",
            Self::Provide => "provide",
            Self::Deploy => "active",
            Self::Rebuild => "rebuild",
            Self::Delete => "deleted",
            Self::Clean => "clean",
            Self::Abort => "abort",
            Self::Done => "done",
            Self::Fail => "fail",
            Self::Wait => "wait",
            Self::Resume => "resume",
        }
    }
}

/// A move: the state it leads to, and where the node is going from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The new provision state.
    pub state: S,
    /// The new target; `None` when it has arrived.
    pub target: Option<S>,
}

/// What a row of the table says about the target.
#[derive(Clone, Copy)]
enum Aim {
    /// It has arrived.
    Arrived,
    /// It is going there now.
    To(S),
    /// It goes on going where it was going.
    Keep,
}

#[rustfmt::skip]
const TABLE: &[(S, Verb, S, Aim)] = &[
    (Enroll,       Verb::Manage,  Verifying,    Aim::To(Manageable)),
    (Verifying,    Verb::Done,    Manageable,   Aim::Arrived),
    (Verifying,    Verb::Fail,    Enroll,       Aim::Arrived),

    (Manageable,   Verb::Provide, Cleaning,     Aim::To(Available)),
    (Manageable,   Verb::Clean,   Cleaning,     Aim::To(Manageable)),
    (Cleaning,     Verb::Wait,    CleanWait,    Aim::Keep),
    (CleanWait,    Verb::Resume,  Cleaning,     Aim::Keep),
    (Cleaning,     Verb::Fail,    CleanFailed,  Aim::Keep),
    (CleanWait,    Verb::Fail,    CleanFailed,  Aim::Keep),
    (CleanWait,    Verb::Abort,   CleanFailed,  Aim::Keep),
    (CleanFailed,  Verb::Manage,  Manageable,   Aim::Arrived),
    (Available,    Verb::Manage,  Manageable,   Aim::Arrived),

    (Available,    Verb::Deploy,  Deploying,    Aim::To(Active)),
    (DeployFailed, Verb::Deploy,  Deploying,    Aim::To(Active)),
    (DeployFailed, Verb::Rebuild, Deploying,    Aim::To(Active)),
    (Active,       Verb::Rebuild, Deploying,    Aim::To(Active)),
    (Error,        Verb::Rebuild, Deploying,    Aim::To(Active)),
    (Deploying,    Verb::Wait,    WaitCallback, Aim::Keep),
    (WaitCallback, Verb::Resume,  Deploying,    Aim::Keep),
    (Deploying,    Verb::Done,    Active,       Aim::Arrived),
    (Deploying,    Verb::Fail,    DeployFailed, Aim::Keep),
    (WaitCallback, Verb::Fail,    DeployFailed, Aim::Keep),
    (WaitCallback, Verb::Abort,   DeployFailed, Aim::Keep),

    (Active,       Verb::Delete,  Deleting,     Aim::To(Available)),
    (DeployFailed, Verb::Delete,  Deleting,     Aim::To(Available)),
    (WaitCallback, Verb::Delete,  Deleting,     Aim::To(Available)),
    (Error,        Verb::Delete,  Deleting,     Aim::To(Available)),
    (Deleting,     Verb::Clean,   Cleaning,     Aim::To(Available)),
    (Deleting,     Verb::Fail,    Error,        Aim::Keep),
];

/// Where `verb` leads a node that is in `state` and going to `target`; `None` when it can not happen there.
pub fn next(state: S, target: Option<S>, verb: Verb) -> Option<Move> {
    // Cleaning ends where it was going: `available` after `provide`, `manageable` after `clean`.
    if (state, verb) == (Cleaning, Verb::Done) {
        return Some(Move { state: target.unwrap_or(Available), target: None });
    }
    let (_, _, to, aim) = TABLE.iter().find(|(from, with, _, _)| (*from, *with) == (state, verb))?;
    let target = match aim {
        Aim::Arrived => None,
        Aim::To(target) => Some(*target),
        Aim::Keep => target,
    };
    Some(Move { state: *to, target })
}

/// The states from which an operator may use `verb`, for the text of a refusal.
pub fn allowed_from(verb: Verb) -> Vec<&'static str> {
    S::ALL.into_iter().filter(|state| next(*state, None, verb).is_some()).map(S::name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of state and verb is here or is refused: a change of the table has to change this text too.
    const LIFE: &str = "\
enroll --manage--> verifying
verifying --done--> manageable
verifying --fail--> enroll
manageable --provide--> cleaning
manageable --clean--> cleaning
cleaning --done--> available
cleaning --fail--> clean failed
cleaning --wait--> clean wait
clean wait --abort--> clean failed
clean wait --fail--> clean failed
clean wait --resume--> cleaning
clean failed --manage--> manageable
available --manage--> manageable
available --active--> deploying
deploying --done--> active
deploying --fail--> deploy failed
deploying --wait--> wait call-back
wait call-back --deleted--> deleting
wait call-back --abort--> deploy failed
wait call-back --fail--> deploy failed
wait call-back --resume--> deploying
deploy failed --active--> deploying
deploy failed --rebuild--> deploying
deploy failed --deleted--> deleting
active --rebuild--> deploying
active --deleted--> deleting
deleting --clean--> cleaning
deleting --fail--> error
error --rebuild--> deploying
error --deleted--> deleting
";

    #[test]
    fn the_whole_table_is_as_written_down() {
        let mut text = String::new();
        for state in S::ALL {
            for verb in Verb::ALL {
                if let Some(to) = next(state, None, verb) {
                    text += &format!("{state} --{}--> {}\n", verb.name(), to.state);
                }
            }
        }
        assert_eq!(text, LIFE);
        assert_eq!(TABLE.len() + 1, LIFE.lines().count(), "a pair stands in the table twice");
    }

    #[test]
    fn every_transient_state_has_a_way_out_to_success_and_to_failure() {
        for state in S::ALL.into_iter().filter(|s| s.is_transient()) {
            assert!(next(state, None, Verb::Fail).is_some(), "{state} can not fail");
            let goes_on =
                [Verb::Done, Verb::Resume, Verb::Clean].iter().any(|v| next(state, None, *v).is_some());
            assert!(goes_on, "{state} can not end well");
        }
    }

    #[test]
    fn targets_follow_the_moves() {
        let start = next(Available, None, Verb::Deploy).unwrap();
        assert_eq!(start, Move { state: Deploying, target: Some(Active) });
        let wait = next(start.state, start.target, Verb::Wait).unwrap();
        assert_eq!(wait.target, Some(Active));
        assert_eq!(next(Deploying, wait.target, Verb::Done).unwrap(), Move { state: Active, target: None });
        assert_eq!(next(Cleaning, Some(Manageable), Verb::Done).unwrap().state, Manageable);
        assert_eq!(next(Cleaning, Some(Available), Verb::Done).unwrap().state, Available);
    }

    #[test]
    fn every_api_target_names_its_verb() {
        for verb in
            [Verb::Manage, Verb::Provide, Verb::Deploy, Verb::Rebuild, Verb::Delete, Verb::Clean, Verb::Abort]
        {
            assert_eq!(Verb::from_target(verb.name()), Some(verb));
            assert!(!allowed_from(verb).is_empty());
        }
        for internal in ["done", "fail", "wait", "resume", ""] {
            assert_eq!(Verb::from_target(internal), None);
        }
    }
}
