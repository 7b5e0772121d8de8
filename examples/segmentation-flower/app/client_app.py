"""Trains and evaluates the network on the project's studies: a Flower ClientApp."""

from __future__ import annotations

import torch
from flip import FLIP
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from app.data import Sample, dice, load_samples, split
from app.models import get_model

POSITIVE_WEIGHT = 4.0
"""The structure is small: each of its voxels counts as much as four others."""

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train `local-epochs` from the weights in the message; a point of the loss after each one."""
    model, config = model_of(message), context.run_config
    samples, _ = studies(context)
    epochs, first = int(config["local-epochs"]), int(message.content["config"]["server-round"]) - 1
    optimizer = torch.optim.Adam(model.parameters(), lr=float(config["learning-rate"]))
    loss_of = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(POSITIVE_WEIGHT))
    metrics: dict[str, int | float] = {"num-examples": len(samples)}
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for index in torch.randperm(len(samples)).tolist():
            optimizer.zero_grad()
            loss = loss_of(model(samples[index].image[None]), samples[index].mask[None])
            loss.backward()
            optimizer.step()
            total += loss.item()
        metrics[f"TRAIN_LOSS@epoch.x_{first * epochs + epoch + 1}"] = total / len(samples)
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """The mean Dice of the weights in the message on the held-out studies."""
    _, held_out = studies(context)
    metrics = MetricRecord({"num-examples": len(held_out), "VAL_DICE": dice(model_of(message), held_out)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def studies(context: Context) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples of the project."""
    config = context.run_config
    samples = load_samples(FLIP(), str(config["flip-project-id"]), str(config["flip-cohort-query"]))
    return split(samples, float(config["validation-share"]))


def model_of(message: Message) -> nn.Module:
    """The network with the weights in a message."""
    model = get_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return model
