//! App: builds the rooms from the configuration; bind order and drain order.
