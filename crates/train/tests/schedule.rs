//! Schedules at their corners and between.

use train::schedule::{Schedule, Shape};

#[test]
fn every_shape_has_its_corners_and_no_jumps() {
    let cosine = Shape::Cosine { steps: 110, floor: 0.1 };
    let stable = Shape::StableDecay { steps: 110, decay: 20, floor: 0.0 };
    // Step and share.
    let cases: [(Shape, &[(u64, f64)]); 3] = [
        (Shape::Constant, &[(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (u64::MAX, 1.0)]),
        (cosine, &[(0, 0.1), (9, 1.0), (10, 1.0), (35, 0.868198), (60, 0.55), (110, 0.1), (u64::MAX, 0.1)]),
        (stable, &[(0, 0.1), (9, 1.0), (90, 1.0), (95, 0.75), (100, 0.5), (109, 0.05), (110, 0.0), (9999, 0.0)]),
    ];
    let mut n_points = 0;
    for (then, points) in cases {
        let schedule = Schedule { warm_up: 10, then };
        for (step, expected) in points {
            // The cosine is an f32's; the table has six digits.
            assert!((schedule.factor(*step) - expected).abs() < 1e-6, "{then:?} at {step}");
            n_points += 1;
        }
        let jumps = (0..200).map(|step| (schedule.factor(step + 1) - schedule.factor(step)).abs());
        assert!(jumps.fold(0.0, f64::max) < 0.1 + 1e-9, "{then:?}");
    }
    println!("{n_points} points");
}

#[test]
fn degenerate_schedules_are_finite() {
    let mut n_values = 0;
    for warm_up in [0, 1, 50] {
        for steps in [0, 1, 10, 50] {
            let shapes = [
                Shape::Cosine { steps, floor: 0.2 },
                Shape::StableDecay { steps, decay: 100, floor: 0.2 },
                Shape::StableDecay { steps, decay: 0, floor: 0.2 },
                Shape::Constant,
            ];
            for then in shapes {
                for step in 0..60 {
                    let factor = Schedule { warm_up, then }.factor(step);
                    assert!((0.0..=1.0).contains(&factor), "{warm_up} {then:?} {step}: {factor}");
                    n_values += 1;
                }
            }
        }
    }
    println!("{n_values} values");
}
