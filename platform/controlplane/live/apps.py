from django.apps import AppConfig


class LiveConfig(AppConfig):
    name = "controlplane.live"
    label = "live"

    def ready(self) -> None:
        from controlplane.live.services import announce, topic_of_person
        from controlplane.tenancy.watching import register_watcher

        register_watcher(lambda user_id: announce(topic_of_person(user_id), "access"))
