import pytest

from ecg_jepa.benchmarking.variants import variants_of


def test_by_default_the_precision_of_the_configuration_and_float32():
    assert [variant.label for variant in variants_of("vit_xs_ptbxl", [], [])] == ["mixed_precision=auto", "mixed_precision=no"]
    assert [variant.label for variant in variants_of("demo", [], [])] == ["mixed_precision=no"]


def test_settings_are_of_all_variants_and_changes_of_one():
    first, second = variants_of(
        "vit_s_all", ["databases=ptb-xl=1.0", "batch_size=64"], ["torch_compile=true,batch_size=32", "objective=mae"]
    )
    assert first.recipe.database_weights() == second.recipe.database_weights() == {"ptb-xl": 1.0}
    assert (first.recipe.batch_size, second.recipe.batch_size) == (32, 64)
    assert (first.recipe.torch_compile, second.recipe.torch_compile) == (True, False)
    assert (first.recipe.objective, second.recipe.objective) == ("jepa", "mae")
    assert first.changes == {"torch_compile": "true", "batch_size": "32"}


def test_an_unknown_setting_is_named_with_its_variant():
    with pytest.raises(ValueError, match=r"vit_s_all with sizes=s: unknown setting: 'sizes'; did you mean 'size'\?"):
        variants_of("vit_s_all", [], ["size=xs", "sizes=s"])


@pytest.mark.parametrize("changed", ["objective=mae", "position_encoding=rotary", "masks_per_record=2"])
def test_what_the_reference_cannot_compute_is_refused(changed):
    (variant,) = variants_of("vit_s_all", [], [changed])
    with pytest.raises(ValueError, match=f"against: the reference implementation has {changed.partition('=')[0]}="):
        variant.check_reference_has_it()
