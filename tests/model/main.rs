//! Every sequence of commands in small worlds, against a naive model of SPC-4 r37, Reservations.
//!
//! The model is written rule by rule from the standard's tables and shares nothing with the engine. Both are
//! given the same command in every state that can be reached, whatever the sequence, until no new state comes
//! up; PRGENERATION is compared by how much it grows, so that it does not make the states endless. Compared
//! are the answer down to the field pointer, the next state, unit attentions, commands to abort, what must be
//! stored, the answers of PERSISTENT RESERVE IN, and the gate.

use std::collections::{HashSet, VecDeque};

use tcmu_pr::pr::out::{self, Cdb};
use tcmu_pr::pr::{Change, Refusal, Reservations, spc2};

mod engine;
mod rules;

use engine::{Engine, bytes};
use rules::{Answer, Command, State, World, old};

/// Every command that can be told apart from others in this world.
fn commands(world: &World) -> Vec<Command> {
    let mut all = Vec::new();
    let keys = || std::iter::once(0).chain(world.keys.iter().copied());
    let hosts = world.nexuses.iter().map(|nexus| nexus.0).max().unwrap_or(0);
    let mut lists: Vec<Option<Option<Vec<u8>>>> = vec![None, Some(None), Some(Some(vec![]))];
    for one in 0..=hosts {
        lists.push(Some(Some(vec![one])));
        for two in 0..one {
            lists.push(Some(Some(vec![one, two])));
        }
    }
    let bits = [false, true];
    for service_action in 0x00..=0x08 {
        for key in keys() {
            let basic = Command {
                service_action,
                key,
                ..Command::default()
            };
            all.push(Command {
                length: Some(23),
                ..basic.clone()
            });
            for new_key in keys() {
                let basic = Command {
                    new_key,
                    ..basic.clone()
                };
                match service_action {
                    0x00 | 0x06 => {
                        for (all_tg_pt, aptpl) in bits.map(|a| bits.map(|b| (a, b))).concat() {
                            for list in &lists {
                                let listed = list.clone().flatten();
                                let spec_i_pt = list.is_some();
                                if service_action == 0x00 || listed.is_none() {
                                    let basic = basic.clone();
                                    let spec_i_pt = Command {
                                        spec_i_pt,
                                        listed,
                                        ..basic
                                    };
                                    all.push(Command {
                                        all_tg_pt,
                                        aptpl,
                                        ..spec_i_pt
                                    });
                                }
                            }
                        }
                    }
                    0x07 => {
                        for (unreg, aptpl) in bits.map(|a| bits.map(|b| (a, b))).concat() {
                            for host in 0..=hosts {
                                for port in 0..=u16::from(world.ports()) {
                                    let basic = basic.clone();
                                    all.push(Command {
                                        unreg,
                                        aptpl,
                                        host,
                                        port,
                                        ..basic
                                    });
                                }
                            }
                        }
                    }
                    _ => {
                        let many = (0x01..=0x05).contains(&service_action);
                        if many && (new_key == 0 || service_action >= 0x04) {
                            for &scope_type in &world.scope_types {
                                all.push(Command {
                                    scope_type,
                                    ..basic.clone()
                                });
                            }
                        }
                        all.push(Command {
                            spec_i_pt: true,
                            ..basic
                        });
                    }
                }
            }
        }
    }
    all
}

/// Runs every command in every state that can be reached. Yields how many states there are.
fn explore(world: &World) -> usize {
    let engine = Engine::new(world);
    let commands: Vec<(Command, Cdb, Vec<u8>)> = commands(world)
        .into_iter()
        .map(|command| {
            let (cdb, list) = bytes(&command);
            (command, cdb, list)
        })
        .collect();
    let mut seen = HashSet::from([State::default()]);
    let mut queue = VecDeque::from([(State::default(), Reservations::default())]);
    while let Some((model, state)) = queue.pop_front() {
        engine.compare_views(&model, &state);
        let mut reached =
            |expected: Answer, answer: Result<Change, Refusal>, what: &dyn Fn() -> String| {
                assert_eq!(
                    engine.answer(&state, &answer),
                    expected,
                    "{} in {model:?}",
                    what()
                );
                if let (Answer::Good(effects), Ok(change)) = (expected, answer) {
                    if seen.insert(effects.next.clone()) {
                        queue.push_back((effects.next, change.next));
                    }
                }
            };
        for (issuer, nexus) in engine.nexuses.iter().enumerate() {
            for (command, cdb, list) in &commands {
                let expected = world.decide(&model, issuer, command);
                let answer = out::answer(&state, nexus, *cdb, list, &engine.context);
                reached(expected, answer, &|| format!("{command:?} by {issuer}"));
            }
            let answer = spc2::reserve(&state, nexus);
            reached(old(&model, issuer, true), answer, &|| {
                format!("RESERVE by {issuer}")
            });
            let answer = spc2::release(&state, nexus);
            reached(old(&model, issuer, false), answer, &|| {
                format!("RELEASE by {issuer}")
            });
            let lost = state.released_by_nexus_loss(nexus);
            assert_eq!(lost.is_some(), model.spc2 == Some(issuer));
        }
        assert_eq!(state.released_by_reset().is_some(), model.spc2.is_some());
        let after = engine.state(&state.after_power_loss());
        let kept = if model.aptpl {
            State {
                spc2: None,
                ..model
            }
        } else {
            State::default()
        };
        assert_eq!(after, kept);
    }
    seen.len()
}

/// How many states a world has: every order in which some of `nexuses` registered under one of `keys`, each with
/// no reservation, one of four types and a holder, or one of two types; times APTPL; and those with a RESERVE.
fn states(nexuses: usize, keys: usize) -> usize {
    let mut orders = 1;
    let mut states = 1;
    for registered in 1..=nexuses {
        orders *= (nexuses - registered + 1) * keys;
        states += orders * (1 + 4 * registered + 2);
    }
    2 * (states + nexuses)
}

const ALL_SCOPE_TYPES: [u8; 9] = [1, 3, 5, 6, 7, 8, 0, 2, 0x11];

#[test]
fn three_hosts_at_one_target_port() {
    let world = World {
        nexuses: vec![(0, 1), (1, 1), (2, 1)],
        keys: vec![1, 2],
        scope_types: ALL_SCOPE_TYPES.to_vec(),
    };
    assert_eq!(explore(&world), states(3, 2));
}

#[test]
fn one_host_at_three_target_ports() {
    let world = World {
        nexuses: vec![(0, 1), (0, 2), (0, 3)],
        keys: vec![1, 2],
        scope_types: ALL_SCOPE_TYPES.to_vec(),
    };
    // A reservation of one host cannot be moved to itself, but all the same states can be reached.
    assert_eq!(explore(&world), states(3, 2));
}

#[test]
fn two_hosts_at_two_target_ports() {
    let world = World {
        nexuses: vec![(0, 1), (0, 2), (1, 1), (1, 2)],
        keys: vec![1],
        scope_types: vec![1, 5, 7],
    };
    assert!(explore(&world) > 1_000);
}
