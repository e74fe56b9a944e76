"""The posttrain room turns a base model into an assistant, stage by stage: a Hugging Face model folder in, one out.

It holds the chat template, the conversations to learn from, and the trainers' settings with the checks they need.
"""
