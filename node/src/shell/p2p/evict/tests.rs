use super::*;

/// The slots of a node that are full, with times in seconds.
struct Slots {
    began: Instant,
    now: u64,
    taken: Vec<Candidate<u32>>,
    next: u32,
}

impl Slots {
    fn new() -> Self {
        Self { began: Instant::now(), now: 0, taken: Vec::new(), next: 0 }
    }

    fn at(&self, second: u64) -> Instant {
        self.began + Duration::from_secs(second)
    }

    /// A connection that begins now.
    fn join(&mut self, group: u64) -> u32 {
        self.now += 1;
        self.next += 1;
        let since = self.at(self.now);
        self.taken.push(Candidate { id: self.next, group, since, ping: None, transaction: None, block: None });
        self.next
    }

    /// So many connections that begin one after the other.
    fn fill(&mut self, count: u64, group: impl Fn(u64) -> u64) {
        for number in 0..count {
            self.join(group(number));
        }
    }

    fn of(&mut self, id: u32) -> &mut Candidate<u32> {
        self.taken.iter_mut().find(|candidate| candidate.id == id).unwrap()
    }

    fn has(&self, id: u32) -> bool {
        self.taken.iter().any(|candidate| candidate.id == id)
    }

    /// A connection that begins when all slots are taken; whether it got one.
    fn press(&mut self, group: u64) -> Option<u32> {
        let evicted = select(self.taken.clone())?;
        self.taken.retain(|candidate| candidate.id != evicted);
        Some(self.join(group))
    }
}

#[test]
fn an_attacker_of_few_groups_pushes_out_only_itself() {
    let mut slots = Slots::new();
    let honest: Vec<_> = (0..50).map(|group| slots.join(100 + group)).collect();
    // The attacker took the rest, and goes on.
    slots.fill(50, |number| number % 3);
    for number in 0..1_000 {
        slots.press(number % 3).unwrap();
    }
    assert!(honest.iter().all(|id| slots.has(*id)));
}

#[test]
fn whoever_fills_all_slots_first_does_not_keep_them() {
    let mut slots = Slots::new();
    for number in 0..100 {
        let id = slots.join(number % 3);
        // It even answers fast and brings what others would have brought.
        let second = slots.at(slots.now);
        *slots.of(id) = Candidate {
            ping: Some(Duration::from_millis(1)),
            transaction: Some(second),
            block: Some(second),
            ..*slots.of(id)
        };
    }
    // Honest peers of many groups come, and the attacker comes back each time.
    let mut honest = Vec::new();
    for group in 100..200 {
        honest.extend(slots.press(group));
        slots.press(group % 3);
    }
    let inside = honest.iter().filter(|id| slots.has(**id)).count();
    assert!(inside >= 35, "{inside}");
}

#[test]
fn merits_protect() {
    let mut slots = Slots::new();
    slots.fill(90, |_| 1);
    let (fast, bringer, voter, plain) = (slots.join(1), slots.join(1), slots.join(1), slots.join(1));
    slots.of(fast).ping = Some(Duration::from_millis(3));
    slots.of(bringer).transaction = Some(slots.at(50));
    slots.of(voter).block = Some(slots.at(60));
    slots.fill(6, |_| 1);
    for _ in 0..7 {
        slots.press(1).unwrap();
    }
    // They are young; without merits they would have gone with the seven youngest.
    for _ in 0..50 {
        let evicted = select(slots.taken.clone()).unwrap();
        slots.taken.retain(|candidate| candidate.id != evicted);
    }
    assert!([fast, bringer, voter].into_iter().all(|id| slots.has(id)) && !slots.has(plain));
}

#[test]
fn groups_that_a_key_chooses_are_protected() {
    let mut slots = Slots::new();
    slots.fill(96, |_| 1);
    let chosen: Vec<_> = (0..4).map(|number| slots.join(u64::MAX - number)).collect();
    for _ in 0..500 {
        slots.press(1).unwrap();
    }
    assert!(chosen.iter().all(|id| slots.has(*id)));
}

#[test]
fn few_stay_whoever_comes() {
    let mut slots = Slots::new();
    for number in 0..5 {
        assert_eq!(select(slots.taken.clone()), None, "{number}");
        slots.join(1);
    }
    slots.fill(3, |_| 1);
    assert_eq!(select(slots.taken.clone()), Some(8), "of eight the youngest");
}
