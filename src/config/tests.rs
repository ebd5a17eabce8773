use super::*;

#[test]
fn the_example_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/flowkeeper.toml");
    match check(&path, &Environment::default()) {
        Ok((config, warnings)) => {
            assert_eq!(warnings, [], "{}", render::human(&warnings, render::Color::Off));
            assert_eq!(config.schedules.len(), 4);
        }
        Err(faults) => panic!("{}", render::human(&faults.faults, render::Color::Off)),
    }
}
