"""Prompts of dialog tasks that ask for the dialog before a reply.

Both datasets have the same ten (Longpre et al., 2023, arXiv 2301.13688,
section 3.3).
"""

INVERSIONS = (
  ("{response}\n\nThat was the last reply in a conversation. Write what was said before it.", "{dialog}"),
  ("Invent the conversation that ends with this reply:\n{response}", "{dialog}"),
  ("Reply: {response}\nDialog before it:", "{dialog}"),
  ("Which talk between two people could lead up to the following words?\n\n{response}", "{dialog}"),
  ("The beginning of a chat was lost, and only its end is left:\n\n{response}\n\nFill in the beginning.", "{dialog}"),
  ("Someone answers \"{response}\" in the course of an exchange. Give the exchange up to that point.", "{dialog}"),
  ("A writer has the closing line of a scene in which one person asks and another knows the answers. Write the rest of the scene.\n\nClosing line: {response}", "{dialog}"),
  ("What might have been said until somebody replied like this?\n{response}", "{dialog}"),
  ("Work backwards from the reply to the questions and answers that came first.\n\n{response}", "{dialog}"),
  ("___\n{response}\n\nThe blank stands for several turns of a conversation. Write them.", "{dialog}"),
)
