use proptest::prelude::{any, prop_assert_eq, proptest};

use super::*;
use crate::pr::testing::{a, a2, b, c};

/// Who is registered under which key, as plainly as can be.
type List = Vec<(ItNexus, u64)>;

fn list<'a>(nexuses: impl Iterator<Item = &'a Arc<ItNexus>>) -> Vec<ItNexus> {
    nexuses.map(|nexus| ItNexus::clone(nexus)).collect()
}

fn list_of(registrants: &Registrants) -> List {
    let all = registrants.iter();
    all.map(|registrant| (ItNexus::clone(&registrant.nexus), registrant.key))
        .collect()
}

fn filtered(expected: &List, wanted: impl Fn(&ItNexus, u64) -> bool) -> Vec<ItNexus> {
    let found = expected.iter().filter(|(nexus, key)| wanted(nexus, *key));
    found.map(|(nexus, _)| nexus.clone()).collect()
}

/// Whether it can be told from the plain list by anything that can be asked.
#[track_caller]
fn assert_same(registrants: &Registrants, expected: &List) {
    assert_eq!(list_of(registrants), *expected);
    assert_eq!(registrants.len(), expected.len());
    assert_eq!(registrants.check(), Ok(()));
    for key in 1..4 {
        let wanted = filtered(expected, |_, registered| registered == key);
        assert_eq!(list(registrants.with_key(key)), wanted);
    }
    for nexus in [a(), a2(), b(), c()] {
        let key = expected.iter().find(|(registered, _)| *registered == nexus);
        assert_eq!(registrants.key(&nexus), key.map(|(_, key)| *key));
        assert_eq!(registrants.contains(&nexus), key.is_some());
        let TransportId::Iscsi { name, .. } = &nexus.initiator_port else {
            panic!("all of them are iSCSI's");
        };
        let wanted = filtered(expected, |registered, _| {
            registered.initiator_port == nexus.initiator_port
        });
        assert_eq!(list(registrants.with_name(name)), wanted);
    }
}

proptest! {
    #[test]
    fn registrants_are_a_list_and_no_copy_knows_of_another(
        changes in proptest::collection::vec((0_usize..4, 0_u64..4, any::<bool>()), 0..40),
    ) {
        let nexuses = [a(), a2(), b(), c()];
        let (mut registrants, mut expected) = (Registrants::default(), List::new());
        let mut copies = Vec::new();
        for (nexus, key, copy) in changes {
            if copy {
                copies.push((registrants.clone(), expected.clone()));
            }
            let nexus = &nexuses[nexus];
            let place = expected.iter().position(|(registered, _)| registered == nexus);
            match (place, key) {
                (Some(place), 0) => drop(expected.remove(place)),
                (Some(place), key) => expected[place].1 = key,
                (None, 0) => {}
                (None, key) => expected.push((nexus.clone(), key)),
            }
            if key == 0 {
                registrants.remove(nexus);
            } else {
                registrants.set(nexus, key);
            }
            assert_same(&registrants, &expected);
        }
        for (copy, expected) in &copies {
            assert_same(copy, expected);
            prop_assert_eq!(copy == &registrants, *expected == list_of(&registrants));
        }
    }
}
