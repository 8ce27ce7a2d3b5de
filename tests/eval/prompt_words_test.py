import numpy as np
import pytest

from flan_jax.errors import UserError
from flan_jax.eval import page_prompt, prompt_words

TABLE = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [3.0, 3.0]])


class Names:
  def decode(self, ids):
    return "abcd"[ids[0]]


def test_nearest_tokens_and_their_texts():
  prompt = np.array([[0.0, 0.5], [1.0, 1.0]])
  near = prompt_words.nearest_tokens(prompt, TABLE, count=2)
  assert near == [[(1, 1.0), (3, 0.7071)], [(3, 1.0), (0, 0.7071)]]
  words = prompt_words.words(near, Names())
  assert words[0][0] == {"id": 1, "text": "b", "cosine": 1.0}
  assert prompt_words.markdown(words)[2] == "| 0 | `b` 1.00, `d` 0.71 |"
  (_, section) = page_prompt.shown({"encoder": words})
  assert "<td>&#x27;b&#x27; 1.00, &#x27;d&#x27; 0.71</td>" in section
  assert list(page_prompt.shown({})) == []
  with pytest.raises(UserError, match="have 3 numbers, the embedding's 2"):
    prompt_words.nearest_tokens(np.ones((1, 3)), TABLE)


def test_how_like_prompts_are():
  prompts = {"a": np.eye(2), "b": np.ones((1, 2)), "c": -np.ones((3, 2))}
  found = prompt_words.similarity(prompts)
  assert found == {("a", "b"): 1.0, ("a", "c"): -1.0, ("b", "c"): -1.0}
  assert prompt_words.similarity_markdown(found)[2] == "| a | b | 1.000 |"
