"""For producers and gateways: send requests, wait for outcomes, follow signal vectors."""

from worker.client.alpaca import AlpacaBroker, AlpacaOptions
from worker.client.asynchronous import AsyncSignalClient, AsyncSignalFeed
from worker.client.brokers import Account, Broker, broker_gateway
from worker.client.errors import OutcomeGone, RedriveRefused, SubmitInterrupted
from worker.client.feeds import Delivery, RefusedEntry
from worker.client.gateway import Application, Gateway, GatewayOptions, order_key
from worker.client.inbox import Disposition
from worker.client.orders import (
    LimitedOrder,
    Order,
    OrderPlan,
    OrderRules,
    RefusedOrder,
    application_orders,
    weights_to_orders,
)
from worker.client.paper import PaperBroker, paper_gateway
from worker.client.synchronous import SignalClient, SignalFeed

__all__ = [
    "Account",
    "AlpacaBroker",
    "AlpacaOptions",
    "Application",
    "AsyncSignalClient",
    "AsyncSignalFeed",
    "Broker",
    "Delivery",
    "Disposition",
    "Gateway",
    "GatewayOptions",
    "LimitedOrder",
    "Order",
    "OrderPlan",
    "OrderRules",
    "OutcomeGone",
    "PaperBroker",
    "RedriveRefused",
    "RefusedEntry",
    "RefusedOrder",
    "SignalClient",
    "SignalFeed",
    "SubmitInterrupted",
    "application_orders",
    "broker_gateway",
    "order_key",
    "paper_gateway",
    "weights_to_orders",
]
