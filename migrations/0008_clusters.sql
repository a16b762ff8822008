-- migrate:up
set search_path to lookalike, public;

-- Several analyses of one kind and encoder may stand side by side ---------------------------------------------------------


-- Clusterings -------------------------------------------------------------------------------------------------------------

create table clusterings (
    analysis   bigint primary key references analyses,
    encoder    text not null references encoders,
    of         text not null check (of in ('images', 'works')),
    method     text not null check (method in ('kmeans', 'hdbscan')),
    seed       bigint not null,
    sampled    integer not null,
    silhouette real check (silhouette between -1 and 1),
    made_at    timestamptz not null default now(),
    shown      boolean not null default false,
    summed_at  timestamptz,
    seconds    real
);
create unique index clusterings_shown on clusterings (encoder, of, method) where shown;
comment on table clusterings is 'One row for each way to cluster that is shown or under way; older ones are deleted when a new one is complete.';
comment on column clusterings.analysis is 'The analysis that assigns images or works to its clusters.';
comment on column clusterings.encoder is 'The encoder whose vectors are clustered.';
comment on column clusterings.of is 'What is clustered: images, or works by the mean vector of their images.';
comment on column clusterings.method is 'kmeans: everything is assigned to its nearest cluster, also what arrives later. hdbscan: a sample once, without its noise.';
comment on column clusterings.seed is 'Seed of the sample and of the training.';
comment on column clusterings.sampled is 'How many vectors the centres were trained on.';
comment on column clusterings.silhouette is 'Simplified silhouette of vectors outside of the training, -1..1: near 1 clusters lie far apart, near 0 they touch. Null: not measured.';
comment on column clusterings.made_at is 'When its centres were trained.';
comment on column clusterings.shown is 'Whether the views show it: from when everything is assigned until its successor is as far.';
comment on column clusterings.summed_at is 'When sizes, exemplars and labels were last computed. Null: not yet.';
comment on column clusterings.seconds is 'How long that took; it is done again at the earliest after a hundred times as long.';

create table cluster_identities (
    id       bigint generated always as identity primary key,
    encoder  text not null references encoders,
    of       text not null check (of in ('images', 'works')),
    method   text not null check (method in ('kmeans', 'hdbscan')),
    name     text check (name <> ''),
    named_at timestamptz,
    born_at  timestamptz not null default now()
);
comment on table cluster_identities is 'What stays of a cluster from one clustering to the next, while more than half of the union of old and new members is in both.';
comment on column cluster_identities.id is 'The stable number of the cluster.';
comment on column cluster_identities.encoder is 'The encoder whose vectors are clustered.';
comment on column cluster_identities.of is 'What it is a cluster of: images or works.';
comment on column cluster_identities.method is 'The method that found it.';
comment on column cluster_identities.name is 'The name that people gave it, with `lookalike clusters name`. Null: none yet.';
comment on column cluster_identities.named_at is 'When it got its name.';
comment on column cluster_identities.born_at is 'When the first clustering that has it was complete.';

create table cluster_centres (
    analysis  bigint not null references clusterings on delete cascade,
    number    integer not null,
    centre    vector not null,
    cluster   bigint references cluster_identities,
    size      bigint not null default 0,
    spread    real,
    exemplars text[] not null default '{}',
    classes   text[] not null default '{}',
    words     text[] not null default '{}',
    primary key (analysis, number)
);
alter table cluster_centres alter centre set storage external;
create index cluster_centres_cluster on cluster_centres (cluster);
comment on table cluster_centres is 'The clusters of each clustering; `clusters` shows them.';
comment on column cluster_centres.analysis is 'The clustering.';
comment on column cluster_centres.number is 'Number of the cluster within its clustering; it means nothing beyond it.';
comment on column cluster_centres.centre is 'Unit vector in the middle of the cluster, single precision.';
comment on column cluster_centres.cluster is 'The stable number of the cluster. Null until everything is assigned, and of empty clusters.';
comment on column cluster_centres.size is 'How many members it had when sizes were last counted.';
comment on column cluster_centres.spread is 'Mean distance of its members to the centre, 0..1.';
comment on column cluster_centres.exemplars is 'The five members nearest to the centre: keys of images, or works.';
comment on column cluster_centres.classes is 'Up to three classes of its core that are most over-represented against the whole archive.';
comment on column cluster_centres.words is 'Up to three words of its core''s titles that are most over-represented against the whole archive.';

-- Members. A partition for each clustering, so that an old one of forty million rows goes at once. No foreign keys to
-- images, as with vectors: each new row would lock, and thereby write, a row of images.

create table clustered_images (
    analysis bigint not null,
    image_id bigint not null,
    number   integer not null,
    distance real not null check (distance between 0 and 1),
    primary key (analysis, image_id) include (number)
) partition by list (analysis);
create index clustered_images_nearest on clustered_images (number, distance, image_id);
comment on table clustered_images is 'Which cluster each image is in; `cluster_members` shows it by keys.';
comment on column clustered_images.analysis is 'The clustering.';
comment on column clustered_images.image_id is 'The image.';
comment on column clustered_images.number is 'Number of its cluster within the clustering.';
comment on column clustered_images.distance is 'Distance to the centre of the cluster, 0..1.';

create table clustered_works (
    analysis bigint not null,
    work     text not null,
    number   integer not null,
    distance real not null check (distance between 0 and 1),
    images   integer not null,
    latest   timestamptz not null,
    primary key (analysis, work) include (number)
) partition by list (analysis);
create index clustered_works_nearest on clustered_works (number, distance, work);
comment on table clustered_works is 'Which cluster each work is in; `cluster_members` shows it.';
comment on column clustered_works.analysis is 'The clustering.';
comment on column clustered_works.work is 'The work.';
comment on column clustered_works.number is 'Number of its cluster within the clustering.';
comment on column clustered_works.distance is 'Distance of the mean vector of its images to the centre of the cluster, 0..1.';
comment on column clustered_works.images is 'How many images the mean vector is of.';
comment on column clustered_works.latest is 'When the latest vector among them was stored: with a later one the work is assigned anew.';

create view clusters as
    select g.encoder, g.of, g.method, c.cluster, i.name,
        nullif(concat_ws(': ', c.classes[1], nullif(array_to_string(c.words, ', '), '')), '') as label,
        c.size, c.spread, c.exemplars, c.classes, c.words, g.made_at, g.summed_at
    from clusterings g join cluster_centres c on c.analysis = g.analysis join cluster_identities i on i.id = c.cluster
    where g.shown and c.size > 0;
comment on view clusters is 'Clusters of images and of works that look alike, largest first: select * from clusters where of = ''images'' order by size desc.';
comment on column clusters.encoder is 'The encoder whose vectors are clustered.';
comment on column clusters.of is 'What it is a cluster of: images or works.';
comment on column clusters.method is 'kmeans: everything is in a cluster. hdbscan: clusters of a sample.';
comment on column clusters.cluster is 'Number of the cluster; it stays when clusters are made anew, as long as they overlap by more than half.';
comment on column clusters.name is 'The name that people gave it. Null: none yet.';
comment on column clusters.label is 'What it may be called: its most over-represented class, and the words that mark its titles.';
comment on column clusters.size is 'How many images or works it had at summed_at.';
comment on column clusters.spread is 'Mean distance of its members to the centre, 0..1.';
comment on column clusters.exemplars is 'The five members nearest to the centre: keys of images, or works.';
comment on column clusters.classes is 'The classes most over-represented in its core, the first one most.';
comment on column clusters.words is 'The words of titles most over-represented in its core, the first one most.';
comment on column clusters.made_at is 'When the centres were trained.';
comment on column clusters.summed_at is 'When sizes, exemplars and labels were last computed; members may be newer.';

create view cluster_members as
    select g.encoder, g.of, g.method, c.cluster, n.name, i.key as image, i.work, i.title, m.distance, i.url
    from clusterings g
    join cluster_centres c on c.analysis = g.analysis
    join cluster_identities n on n.id = c.cluster
    join clustered_images m on m.analysis = c.analysis and m.number = c.number
    join images i on i.id = m.image_id
    where g.shown and g.of = 'images'
    union all
    select g.encoder, g.of, g.method, c.cluster, n.name, null, m.work,
        (select i.title from images i where i.work = m.work order by i.id limit 1), m.distance, null
    from clusterings g
    join cluster_centres c on c.analysis = g.analysis
    join cluster_identities n on n.id = c.cluster
    join clustered_works m on m.analysis = c.analysis and m.number = c.number
    where g.shown and g.of = 'works';
comment on view cluster_members is 'The members of clusters, nearest to the centre first: select * from cluster_members where cluster = 7 order by distance limit 100.';
comment on column cluster_members.encoder is 'The encoder whose vectors are clustered.';
comment on column cluster_members.of is 'What it is a cluster of: images or works.';
comment on column cluster_members.method is 'The method that found the cluster.';
comment on column cluster_members.cluster is 'Number of the cluster.';
comment on column cluster_members.name is 'The name that people gave the cluster.';
comment on column cluster_members.image is 'The key of the image. Null in clusters of works.';
comment on column cluster_members.work is 'The work; in clusters of images the one that the image belongs to.';
comment on column cluster_members.title is 'The title of the image, or of the first image of the work.';
comment on column cluster_members.distance is 'Distance to the centre of the cluster, 0..1.';
comment on column cluster_members.url is 'Where the image is fetched from. Null in clusters of works.';

grant select on clusterings, cluster_identities, cluster_centres, clustered_images, clustered_works, clusters,
    cluster_members to analyst;

-- migrate:down
set search_path to lookalike, public;
drop view cluster_members, clusters;
drop table clustered_works, clustered_images, cluster_centres, cluster_identities, clusterings;
