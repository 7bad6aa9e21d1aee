"""Pictures in a page: ids of their own, nothing active, nothing from outside."""

import pytest

from dl3flow.errors import InputError
from dl3flow.report.svg import inline_svg

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="72pt" height="36pt" viewBox="0 0 72 36">'


def test_ids_and_references_are_prefixed():
    text = f'{HEAD}<defs><path id="a" d="M0 0"/><clipPath id="b"><rect/></clipPath></defs><use xlink:href="#a" style="clip-path:url(#b);fill:red"/></svg>'
    out = inline_svg(text, "sed", "f1-", 'a "sed" & <more>')
    assert 'id="f1-a"' in out
    assert 'id="f1-b"' in out
    assert 'href="#f1-a"' in out
    assert "url(#f1-b)" in out
    assert 'aria-label="a &quot;sed&quot; &amp; &lt;more&gt;"' in out
    assert 'viewBox="0 0 72 36"' in out
    assert "http" not in out
    assert "width=" not in out.split(">")[0]


def test_metadata_and_style_are_left_out_and_images_stay():
    text = f'{HEAD}<metadata>secret</metadata><style>*{{fill:red}}</style><image xlink:href="data:image/png;base64,AAAA"/></svg>'
    out = inline_svg(text, "sky", "f1-", "sky")
    assert "secret" not in out
    assert "<style" not in out
    assert 'href="data:image/png;base64,AAAA"' in out


@pytest.mark.parametrize(
    ("inside", "complaint"),
    [
        ("<script>alert(1)</script>", "element 'script'"),
        ("<foreignObject/>", "element 'foreignObject'"),
        ('<path onload="alert(1)"/>', "attribute 'onload'"),
        ('<image xlink:href="https://example.org/a.png"/>', "outside the page"),
        ('<use xlink:href="other.svg#a"/>', "outside the page"),
        ('<path style="fill:url(https://example.org/a)"/>', "attribute 'style'"),
        ('<a xlink:href="javascript:alert(1)"/>', "element 'a'"),
    ],
)
def test_active_or_outside_content_is_refused(inside, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        inline_svg(f"{HEAD}{inside}</svg>", "sed", "f1-", "sed")
    assert "figure 'sed'" in str(caught.value)


@pytest.mark.parametrize("text", ["", "<svg", "<html/>"])
def test_what_is_no_svg_is_refused(text):
    with pytest.raises(InputError, match="figure 'sed'"):
        inline_svg(text, "sed", "f1-", "sed")
